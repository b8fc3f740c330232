"""Distance of a model to PyTorch, and whether it is within tolerance: every output is compared."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mobileclip_dense.artifact.artifact import Artifact
from mobileclip_dense.artifact.precision import MIN_LOGITS_AGREEMENT_PERCENT, NEAR_TIE, find_precision
from mobileclip_dense.runtime.predictor import Predictor

Golden = dict[str, npt.NDArray[Any]]


def relative_error(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    """Norm of the difference divided by the norm of `expected`, in float64; NaN if `found` is not finite."""
    a, b = found.astype(np.float64), expected.astype(np.float64)
    return float(np.linalg.norm(a - b)) / max(float(np.linalg.norm(b)), 1e-30)


def compare_with_golden(where: Path, artifact: Artifact, golden: Golden, predictor: Predictor) -> dict[str, float]:
    """Run the golden inputs one at a time and compare every output; returns the figures of `judge_outputs`.

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
        expected: PyTorch's outputs by name, each [N,...]; other entries are ignored. found: the model's outputs.
        at: appended to an output's name in errors, such as " at another shape".

    Returns:
        `<precision>_relative_error` of the first output and `<output>_relative_error` of every other float output. For
        a class map, `golden_agreement_percent` is the share of pixels with PyTorch's class, and
        `logits_agreement_percent` the share of pixels with the best class of the model's own logits.

    Raises:
        ValueError: an output is missing, has another shape or dtype, or is too far from PyTorch; or the class map does
            not match the logits.
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
    """Percentage of pixels whose class has the best logit, near ties included (see NEAR_TIE).

    Args:
        logits: float [N,C,h,w]; upsampled bilinearly, as in mmsegmentation, before the classes are compared.
        class_map: integers [N,H,W]; a class outside 0..C-1 does not agree.
    """
    agreeing = []
    for scores, classes in zip(logits.astype(np.float32), class_map.astype(np.int64), strict=True):
        full = upsample(scores, *classes.shape)
        chosen = np.take_along_axis(full, classes.clip(0, len(scores) - 1)[None], axis=0)[0]
        near = full.max(axis=0) - chosen <= NEAR_TIE * np.sqrt(np.mean(np.square(scores)))
        agreeing.append(near & (classes >= 0) & (classes < len(scores)))
    return float(np.mean(agreeing) * 100)


def upsample(scores: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
    """float32 [C,h,w] -> [C,height,width], bilinear between pixel centres, as `torch.nn.functional.interpolate` does
    it with `align_corners=False`."""
    rows, columns = _interpolation(scores.shape[1], height), _interpolation(scores.shape[2], width)
    return np.asarray(rows @ scores @ columns.T, np.float32)


def _interpolation(length: int, wanted: int) -> npt.NDArray[np.float32]:
    """The matrix [wanted,length] of a linear interpolation between pixel centres; values at the ends are repeated."""
    position = ((np.arange(wanted) + 0.5) * (length / wanted) - 0.5).clip(0, length - 1)
    lower = np.floor(position).astype(int)
    upper = np.minimum(lower + 1, length - 1)
    weights = np.zeros((wanted, length), np.float32)
    np.add.at(weights, (np.arange(wanted), lower), 1 - (position - lower))
    np.add.at(weights, (np.arange(wanted), upper), position - lower)
    return weights


def _require_close(label: str, output: str, error: float, allowed: float) -> None:
    if not error <= allowed:
        raise ValueError(f"{label}: {output}: relative error {error:.1e} to PyTorch, expected at most {allowed:.0e}; "
                         f"the exported model is wrong")  # fmt: skip


def _require_agreement(label: str, output: str, share: float, wanted: float, what: str) -> None:
    if not share >= wanted:
        raise ValueError(f"{label}: {output}: found {what} in {share:.2f} % of the pixels, expected at least "
                         f"{wanted:g} %; the exported model is wrong")  # fmt: skip
