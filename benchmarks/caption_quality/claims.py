"""The verdicts on the paper's claims, by a rule that was fixed before the measurement.

A gain is *supported* if its 95 % interval (Welch) is above 0. It is *not supported* if the interval is below a relevant
gain, 5 % of the other arm's figure (the paper's gains are 12.1 % of mIoU and 11.5 % of RMSE). It is *not testable* if
the interval contains both 0 and such a gain, because the spread between seeds is too wide. A claim is supported if it
is supported for segmentation and depth, not supported if it is not supported for one of them, otherwise not testable.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from benchmarks.caption_quality.statistics import Comparison, Efficiency

Verdict = Literal["supported", "not supported", "not testable"]
RULE = (
    "Decided before it was measured: a gain is supported where its 95 % interval (Welch) lies above 0; not supported "
    "where the interval lies below 5 % of the other arm's figure; not testable where it holds both 0 and 5 %. The "
    "paper's own gains are 12.1 % and 11.5 %. A claim needs both tasks. Nothing is corrected for the number of claims. "
    "Added after the first measurement: a factor of data efficiency needs a curve of the worse captions that rises, "
    "by an interval that lies above 0."
)
_WORTH_HAVING = 0.05
_FACTOR_WORTH_HAVING = 1.5
_LEARNT = 3.0  # times chance


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim of the paper and its verdict here: supported, not supported or not testable.

    Attributes:
        claim: the claim.
        verdict: the verdict over both tasks.
        by_task: the verdict for each task.
        reason: the figures that decide it, as a sentence.
    """

    claim: str
    verdict: Verdict
    by_task: dict[str, Verdict]
    reason: str


def judge_gain(comparison: Comparison) -> Verdict:
    """The verdict on one gain, by the rule in the module's docstring."""
    low, high = comparison.welch
    if low > 0:
        return "supported"
    return "not supported" if high < _WORTH_HAVING * comparison.reference else "not testable"


def judge_efficiency(efficiency: Efficiency) -> Verdict:
    """The verdict on a factor: supported above 1, not supported below 1.5, not testable if the interval has both.

    It is also not testable if more pairs of the worse captions do not clearly help. This condition was added after the
    first measurement, in which the curves did not rise and would have given a factor of at least 25.
    """
    if not efficiency.more_pairs_help:
        return "not testable"
    low, high = efficiency.interval
    if low > 1:
        return "supported"
    return "not supported" if high < _FACTOR_WORTH_HAVING else "not testable"


def both(verdicts: Mapping[str, Verdict]) -> Verdict:
    """The verdict on a claim about all tasks."""
    if all(verdict == "supported" for verdict in verdicts.values()):
        return "supported"
    return "not supported" if "not supported" in verdicts.values() else "not testable"


def claim_of_gains(claim: str, by_task: Mapping[str, Comparison], learnt: float) -> Claim:
    """A claim that one arm is better than another.

    Args:
        claim: the claim.
        by_task: the comparison for each task.
        learnt: held-out recall@1 of the pretraining, as a multiple of chance. Below 3, the pretraining has learnt too
            little, and the claim is not testable.
    """
    verdicts = {task: judge_gain(comparison) for task, comparison in by_task.items()}
    if learnt < _LEARNT:
        reason = f"Pretraining reached {learnt:.1f} times the recall of chance: it learnt too little to judge by. "
        verdicts = dict.fromkeys(verdicts, "not testable")
    else:
        reason = ""
    parts = [f"{task}: {_gain_sentence(c)} ({verdicts[task]})" for task, c in by_task.items()]
    return Claim(claim=claim, verdict=both(verdicts), by_task=verdicts, reason=reason + "; ".join(parts) + ".")


def claim_of_efficiency(claim: str, by_task: Mapping[str, Efficiency]) -> Claim:
    """The claim that fewer pairs with better captions are as good as more pairs with worse captions."""
    verdicts = {task: judge_efficiency(efficiency) for task, efficiency in by_task.items()}
    parts = [f"{task}: {factor_sentence(e)} ({verdicts[task]})" for task, e in by_task.items()]
    return Claim(claim=claim, verdict=both(verdicts), by_task=verdicts, reason="; ".join(parts) + ".")


def claim_of_agreement(
    claim: str, finetune: Mapping[str, Mapping[str, Comparison]], probe: Mapping[str, Mapping[str, Comparison]]
) -> Claim:
    """The claim that a linear probe gives the same outcomes as fine-tuning.

    The outcome of a comparison is better, worse, or undecided if its interval contains 0. The claim is supported for a
    task if all outcomes are equal and not all are undecided, not supported if the outcomes of one comparison are
    opposite, and otherwise not testable.

    Args:
        finetune, probe: name of the comparison -> task -> comparison.
    """
    tasks = next(iter(finetune.values()))
    verdicts: dict[str, Verdict] = {}
    parts = []
    for task in tasks:
        words = {name: (_word(finetune[name][task]), _word(probe[name][task])) for name in finetune}
        if any(set(pair) == {"better", "worse"} for pair in words.values()):
            verdicts[task] = "not supported"
        elif all(a == b for a, b in words.values()) and any(a != "undecided" for a, _ in words.values()):
            verdicts[task] = "supported"
        else:
            verdicts[task] = "not testable"
        outcomes = ", ".join(f"{name} {a} / {b}" for name, (a, b) in words.items())
        parts.append(f"{task} (fine-tuning / probe): {outcomes} ({verdicts[task]})")
    return Claim(claim=claim, verdict=both(verdicts), by_task=verdicts, reason="; ".join(parts) + ".")


def _word(comparison: Comparison) -> str:
    low, high = comparison.welch
    return "better" if low > 0 else "worse" if high < 0 else "undecided"


def _gain_sentence(c: Comparison) -> str:
    return (
        f"gain {c.gain:.3g} [{c.welch[0]:.3g}, {c.welch[1]:.3g}], {100 * c.relative_gain:.1f} %, "
        f"effect size {c.effect_size:.2g} [{c.effect_interval[0]:.2g}, {c.effect_interval[1]:.2g}]"
    )


def factor_sentence(e: Efficiency) -> str:
    """A factor with its interval as text, or the reason why there is none."""
    if not e.more_pairs_help:
        return (
            f"{short_factor(e)}: all pairs instead of the fewest {_rise(e.rise)} with the worse captions and "
            f"{_rise(e.better_rise)} with the better"
        )
    return f"{short_factor(e)} [{' to '.join(_factor(end, e.largest) for end in e.interval)}]"


def _rise(interval: tuple[float, float]) -> str:
    did = "helped" if interval[0] > 0 else "made it worse" if interval[1] < 0 else "did not surely help"
    return f"{did} (gain [{interval[0]:.3g}, {interval[1]:.3g}])"


def short_factor(e: Efficiency) -> str:
    """A factor without its interval, for a title."""
    return _factor(e.factor, e.largest) if e.more_pairs_help else "no factor"


def _factor(factor: float, largest: float) -> str:
    if factor == 0:
        return "not reached"
    return f"at least {largest:.3g}x" if factor >= largest or math.isinf(factor) else f"{factor:.2g}x"
