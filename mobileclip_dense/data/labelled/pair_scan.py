"""Checks of a pair of image and label, and the cached scan of all pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mobileclip_dense.artifact.images import load_image
from mobileclip_dense.artifact.palette import IGNORE_INDEX
from mobileclip_dense.config import Task
from mobileclip_dense.data.labelled.annotations import UnusableFile, read_class_labels, read_depth_m
from mobileclip_dense.data.labelled.pairs import Pair
from mobileclip_dense.data.scan_cache import scan_with_cache, stamp_of

_MAX_SHARE_BEYOND = 0.99
_MIN_MEDIAN_SHARE = 1 / 200  # of the maximum depth: 5 cm for 10 m, closer than depth cameras measure
_VERSION = 2  # of the checks; a new version invalidates the cache


class Finding(NamedTuple):
    """The result of checking a pair.

    Attributes:
        kind: short name of the problem; empty for a usable pair.
        message: the problem with the file's name; empty for a usable pair.
        height_px, width_px: size of the image; 0 if it could not be read.
        labels: the class indices that occur, ascending; empty for depth.
    """

    kind: str
    message: str
    height_px: int = 0
    width_px: int = 0
    labels: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LabelRules:
    """The settings that determine whether labels are usable. They are part of the cache key."""

    task: Task
    num_classes: int  # 0: unknown
    reduce_zero_label: bool
    ignored_label: int
    max_depth_m: float
    depth_units_per_m: float


def scan_pairs(pairs: Sequence[Pair], rules: LabelRules, root: Path) -> list[Finding]:
    """The findings of all pairs, in order. They are cached by the rules and the size and time of both files."""
    return scan_with_cache(
        pairs, lambda pair: inspect_pair(pair, rules), stamps=[stamp_of(pair.image, pair.label) for pair in pairs],
        from_json=_finding_from_json, is_good=lambda finding: not finding.kind,
        cache_key=f"{_VERSION} {root.resolve()} {rules}", progress="check data",
    )  # fmt: skip


def inspect_pair(pair: Pair, rules: LabelRules) -> Finding:
    """Open and check both files of a pair."""
    try:
        image = load_image(pair.image)
    except (FileNotFoundError, ValueError) as error:
        return Finding("no image" if isinstance(error, FileNotFoundError) else "unusable image", str(error))
    height, width = image.shape[:2]
    try:
        if rules.task == "segment":
            labels = read_class_labels(pair.label, rules.reduce_zero_label, rules.ignored_label)
            _check_size(pair, (height, width), labels.shape)
            return Finding("", "", height, width, _check_classes(pair.label, labels, rules))
        depth_m = read_depth_m(pair.label, rules.depth_units_per_m)
        _check_size(pair, (height, width), depth_m.shape)
        _check_depth(pair.label, depth_m, rules)
        return Finding("", "", height, width)
    except UnusableFile as error:
        return Finding(error.kind, str(error), height, width)


def _check_size(pair: Pair, image: tuple[int, ...], label: tuple[int, ...]) -> None:
    if image != label:
        raise UnusableFile("other size", f"{pair.label}: size: found {'x'.join(map(str, label))}, expected "
                           f"{image[0]}x{image[1]} like {pair.image.name}")  # fmt: skip


def _check_classes(path: Path, labels: npt.NDArray[np.uint8], rules: LabelRules) -> tuple[int, ...]:
    """The class indices that occur. Raises UnusableFile if one of them is out of range."""
    present = tuple(int(index) for index in np.flatnonzero(np.bincount(labels.ravel())) if index != IGNORE_INDEX)
    largest = max(present, default=-1)
    if rules.num_classes and largest >= rules.num_classes:
        offset = int(rules.reduce_zero_label)
        raise UnusableFile(
            "label out of range",
            f"{path}: labels: found {largest + offset}, expected at most {rules.num_classes - 1 + offset} for "
            f"{rules.num_classes} classes ({IGNORE_INDEX}: ignored); correct the mask or the class names",
        )
    return present


def _check_depth(path: Path, depth_m: npt.NDArray[np.float32], rules: LabelRules) -> None:
    """Raises UnusableFile if there is no measurement, or if nearly all are so large or small that the unit is wrong."""
    readings = depth_m[depth_m > 0]
    if not readings.size:
        raise UnusableFile("no depth reading", f"{path}: depth: found only zeros, which mean no measurement")
    limit_m = rules.max_depth_m
    nearest_m, median_m, furthest_m = (float(value) for value in (readings.min(), np.median(readings), readings.max()))
    beyond = float((readings >= limit_m).mean())  # metrics ignore these
    if beyond > _MAX_SHARE_BEYOND or median_m < limit_m * _MIN_MEDIAN_SHARE:
        raise UnusableFile(
            "depth scale",
            f"{path}: depth: found {nearest_m:.3g} to {furthest_m:.3g} m with a median of {median_m:.3g} m, expected "
            f"values up to {limit_m:g} m; check --depth-units-per-m (now {rules.depth_units_per_m:g}) and "
            "--max-depth-m",
        )


def _finding_from_json(answer: Any) -> Finding | None:
    """Parse a finding from cached JSON, in which tuples are lists; None if it is damaged."""
    try:
        finding = Finding(*answer)
        finding = finding._replace(labels=tuple(finding.labels))
    except (TypeError, ValueError):
        return None
    if [type(value) for value in finding] != [str, str, int, int, tuple]:
        return None
    return finding if all(type(label) is int for label in finding.labels) else None
