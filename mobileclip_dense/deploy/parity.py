"""Comparison of the outputs of an exported model with those of PyTorch, by the tolerances of its precision."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mobileclip_dense.artifact.artifact import Artifact
from mobileclip_dense.artifact.precision import MIN_LOGITS_AGREEMENT_PERCENT, NEAR_TIE, find_precision
from mobileclip_dense.runtime.predictor import Predictor

Golden = dict[str, npt.NDArray[Any]]


def relative_error(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    """The norm of the difference divided by the norm of `expected`, in float64. NaN if `found` is not finite."""
    a, b = found.astype(np.float64), expected.astype(np.float64)
    return float(np.linalg.norm(a - b)) / max(float(np.linalg.norm(b)), 1e-30)


def compare_with_golden(where: Path, artifact: Artifact, golden: Golden, predictor: Predictor) -> dict[str, float]:
    """Run the golden inputs one by one and compare every output. Returns the figures of `judge_outputs`.

    Raises:
        ValueError: golden.npz has no example, or an error of `judge_outputs`.
    """
    if len(golden.get("input", ())) == 0:
        raise ValueError(f"{where}: golden.npz: input: found no example, expected at least one; export the model again")
    answers = [predictor(item[None]) for item in golden["input"]]
    outputs = {name for answer in answers for name in answer}
    found = {name: np.concatenate([answer[name] for answer in answers]) for name in outputs}
    return judge_outputs(where, artifact, golden, found)


def judge_outputs(
    where: Path, artifact: Artifact, expected: Mapping[str, npt.NDArray[Any]], found: Mapping[str, npt.NDArray[Any]],
    at: str = "",
) -> dict[str, float]:  # fmt: skip
    """Compare every output of an artifact with PyTorch's, by the tolerances of its runtime and precision.

    Args:
        where: start of error messages.
        artifact: the outputs, runtime and precision.
        expected: PyTorch's outputs by name, each [N,...]. Other entries are ignored.
        found: outputs of the model by name, each [N,...].
        at: text after the name of an output in error messages, for example " at another shape".

    Returns:
        `<precision>_relative_error` of the first output, and `<output>_relative_error` of every other float output. For
        a class map: `golden_agreement_percent`, the share of pixels with PyTorch's class, and
        `logits_agreement_percent`, the share of pixels with the best class of the model's own logits.

    Raises:
        ValueError: an output is missing, has another shape or dtype, or differs from PyTorch by more than the
            tolerance; or the class map does not match the logits.
    """
    label = f"{where}: {artifact.runtime} {artifact.precision}"
    allowed = find_precision(artifact.runtime, artifact.precision)
    figures: dict[str, float] = {}
    for index, name in enumerate(spec.name for spec in artifact.outputs):
        if name not in found or name not in expected:
            raise ValueError(f"{label}: {name}{at}: found no such output in "
                             f"{'the model' if name not in found else 'golden.npz'}, expected it; export the model "
                             f"again")  # fmt: skip
        kinds = [f"{values[name].dtype} {list(values[name].shape)}" for values in (found, expected)]
        if kinds[0] != kinds[1]:
            raise ValueError(f"{label}: {name}{at}: found {kinds[0]}, expected {kinds[1]}; the exported model is wrong")
        if np.issubdtype(expected[name].dtype, np.integer):
            share = float((found[name] == expected[name]).mean() * 100)
            _require_agreement(label, name + at, share, allowed.min_agreement_percent, "PyTorch's class")
            figures["golden_agreement_percent"] = share
        else:
            error = relative_error(found[name], expected[name])
            _require_close(label, name + at, error, allowed.max_relative_error)
            figures[f"{name if index else artifact.precision}_relative_error"] = error
    if {"logits", "class_map"} <= {spec.name for spec in artifact.outputs}:
        share = logits_agreement_percent(found["logits"], found["class_map"])
        _require_agreement(label, "class_map" + at, share, MIN_LOGITS_AGREEMENT_PERCENT, "the best class of its logits")
        figures["logits_agreement_percent"] = share
    return figures


def logits_agreement_percent(logits: npt.NDArray[Any], class_map: npt.NDArray[Any]) -> float:
    """The share of pixels with a class that has the best logit, or a near tie with it (NEAR_TIE), in percent.

    Args:
        logits: float [N,C,h,w]. They are upsampled bilinearly to [N,C,H,W] before the comparison, as in mmsegmentation.
        class_map: integers [N,H,W]. A class outside 0..C-1 counts as different.
    """
    agreeing = []
    for scores, classes in zip(torch.from_numpy(logits).float(), torch.from_numpy(class_map).long(), strict=True):
        full = torch.nn.functional.interpolate(scores[None], classes.shape, mode="bilinear", align_corners=False)[0]
        chosen = full.gather(0, classes.clamp(0, len(scores) - 1)[None])[0]
        near = full.amax(0) - chosen <= NEAR_TIE * scores.square().mean().sqrt()
        agreeing.append(near & (classes >= 0) & (classes < len(scores)))
    return float(torch.stack(agreeing).double().mean() * 100)


def _require_close(label: str, output: str, error: float, allowed: float) -> None:
    if not error <= allowed:
        raise ValueError(f"{label}: {output}: relative error {error:.1e} to PyTorch, expected at most {allowed:.0e}; "
                         f"the exported model is wrong")  # fmt: skip


def _require_agreement(label: str, output: str, share: float, wanted: float, what: str) -> None:
    if not share >= wanted:
        raise ValueError(f"{label}: {output}: found {what} in {share:.2f} % of the pixels, expected at least "
                         f"{wanted:g} %; the exported model is wrong")  # fmt: skip
