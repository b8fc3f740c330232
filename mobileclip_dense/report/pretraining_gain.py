"""Comparison of pretrained runs with runs from scratch, over seeds. It does not import torch."""

import json
from dataclasses import dataclass

from mobileclip_dense.report.records import HEADLINE, RunFiles


@dataclass(frozen=True, kw_only=True)
class PretrainingGain:
    """The figures of pretrained runs and of runs from scratch.

    Attributes:
        task: segment, depth or detect.
        pretrained, scratch: a figure for each seed.
        gain: difference of the means, positive if pretraining helps.
        noise: the larger of the two spreads between seeds.
    """

    task: str
    pretrained: list[float]
    scratch: list[float]
    gain: float
    noise: float

    @property
    def supported(self) -> bool:
        """Whether the gain exceeds the spread between seeds.

        This is a hint, not a test: with two seeds in each arm, it is true by chance in about one case of nine.
        """
        return self.gain > self.noise

    def sentence(self) -> str:
        """The figures and the outcome as a sentence."""
        _, name, unit, _ = HEADLINE[self.task]
        values = [", ".join(f"{v:.3g}" for v in arm) for arm in (self.pretrained, self.scratch)]
        step = "points" if unit == "%" else unit  # a difference of percentages
        noise = f"spread between seeds {self.noise:.3g} {step}"
        if len(self.pretrained) < 2 or len(self.scratch) < 2:
            outcome = "only one seed: not testable"
        elif self.supported:
            outcome = f"pretraining helps by {self.gain:.3g} {step}, more than the {noise}"
        else:
            outcome = f"pretraining did NOT help by more than seed noise (gain {self.gain:.3g} {step}, {noise})"
        return f"{self.task}: {name} {values[0]} {unit} pretrained, {values[1]} {unit} from scratch: {outcome}."


def compare_with_scratch(runs: list[RunFiles]) -> list[PretrainingGain]:
    """The gains for each task, over runs that differ only in initial weights and seed."""
    gains = []
    for task, (key, _, _, larger_is_better) in HEADLINE.items():
        groups: dict[str, dict[bool, list[float]]] = {}
        for run in runs:
            if run.task == task and "structure_sha256" not in run.record:  # a pruned run is another model
                settings = {k: v for k, v in run.config.items() if k not in ("out", "seed", "init")}
                arms = groups.setdefault(json.dumps(settings, sort_keys=True), {True: [], False: []})
                arms[run.config.get("init") is not None].append(float(run.record["metrics"][key]))
        for arms in groups.values():
            pretrained, scratch = arms[True], arms[False]
            if pretrained and scratch:
                difference = sum(pretrained) / len(pretrained) - sum(scratch) / len(scratch)
                gains.append(
                    PretrainingGain(
                        task=task,
                        pretrained=pretrained,
                        scratch=scratch,
                        gain=difference if larger_is_better else -difference,
                        noise=max(max(arm) - min(arm) for arm in (pretrained, scratch)),
                    )
                )
    return gains
