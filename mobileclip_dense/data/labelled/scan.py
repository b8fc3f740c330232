"""Scan of a labelled set: every file is opened and checked once before training, and the findings are cached."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mobileclip_dense.artifact.images import load_image
from mobileclip_dense.artifact.palette import IGNORE_INDEX
from mobileclip_dense.config import FinetuneConfig, Task
from mobileclip_dense.data.labelled.annotations import UnusableFile, read_class_labels, read_depth_m
from mobileclip_dense.data.labelled.labelled_set import LabelledSet
from mobileclip_dense.data.labelled.layouts import find_set
from mobileclip_dense.data.labelled.pairs import Pair
from mobileclip_dense.data.scan_cache import scan_with_cache, stamp_of

_NUM_SHOWN = 10
_MIN_SHARE_PRESENT = 0.5  # of the class indices up to the largest, where nobody has named the classes
_MAX_SHARE_BEYOND = 0.99
_MIN_MEDIAN_SHARE = 1 / 200  # of the largest depth: 5 cm of 10 m, nearer than a depth camera sees
_VERSION = 2  # of the meaning of a finding; another one invalidates the cache


class Finding(NamedTuple):
    """Result of scanning a pair.

    `kind` names the problem in two or three words and is empty for a usable pair; `message` names the file. `labels`
    are the class indices that occur, ascending; empty for depth.
    """

    kind: str
    message: str
    height_px: int = 0
    width_px: int = 0
    labels: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LabelRules:
    """The settings that decide whether labels are usable; findings are cached by them."""

    task: Task
    num_classes: int  # 0: not known
    reduce_zero_label: bool
    ignored_label: int
    max_depth_m: float
    depth_units_per_m: float


def check_set(config: FinetuneConfig) -> LabelledSet:
    """The set at `config.data`, cut to `max_train_images`, with every file checked.

    Raises:
        FileNotFoundError, ValueError: see `find_set` and `check_pairs`; or there is nothing to train on, or no image is
            held out.
    """
    found = find_set(config.data, config.task, config.class_names)
    verify_splits(found, config.data)
    return check_pairs(replace(found, train=found.train[: config.max_train_images]), config)


def verify_splits(found: LabelledSet, root: Path) -> None:
    """Raises ValueError where there is nothing to train on, or no image is held out."""
    for pairs, what in ((found.train, "training"), (found.val, "held-out")):
        if not pairs:
            raise ValueError(f"{root}: found {found.layout} with {len(found.train)} training and {len(found.val)} "
                             f"held-out images; without {what} images it cannot be trained on (`evaluate --data` needs "
                             "only held-out ones)")  # fmt: skip


def check_pairs(found: LabelledSet, config: FinetuneConfig) -> LabelledSet:
    """`usable_pairs` of what `scan_set` finds.

    Raises:
        ValueError: see `usable_pairs`.
    """
    return usable_pairs(found, scan_set(found, config), config)


def scan_set(found: LabelledSet, config: FinetuneConfig) -> list[Finding]:
    """A finding for each pair, training pairs first.

    Raises:
        ValueError: there is no pair.
    """
    if not found.train and not found.val:
        raise ValueError(f"{config.data}: found {found.layout} without an image")
    findings = scan_pairs(found.train + found.val, label_rules(found, config), config.data)
    for index, pair in enumerate(found.train):
        findings[index] = _fit_to_crop(pair, findings[index], config)
    return findings


def usable_pairs(found: LabelledSet, findings: Sequence[Finding], config: FinetuneConfig) -> LabelledSet:
    """The set without its unusable pairs, if `config.skip_bad`, and with numbered class names where it has none.

    Args:
        findings: see `scan_set`.

    Raises:
        ValueError: there are unusable files (the first ten by name, and how many of each kind), or, if they are left
            out, nothing remains; or no mask shows a class; or the masks do not hold class indices.
    """
    names = found.class_names
    bad = [finding for finding in findings if finding.kind]
    if bad and not config.skip_bad:
        raise ValueError(
            f"{describe_bad(config.data, bad, len(findings))}\nCorrect them, or leave them out with --skip-bad."
        )
    good = [not finding.kind for finding in findings]
    train = _usable(found.train, good[: len(found.train)])
    val = _usable(found.val, good[len(found.train) :])
    if (found.train and not train) or (found.val and not val):
        raise ValueError(f"{describe_bad(config.data, bad, len(findings))}\nLeft out, {len(train)} training and "
                         f"{len(val)} held-out images would remain.")  # fmt: skip
    if bad:
        print(f"{config.data}: left out {len(bad)} of {len(findings)} pairs: {count_kinds(bad)}")
    if config.task == "segment":
        masks = [finding for finding in findings if not finding.kind]
        _warn_of_unlabelled(config.data, masks)
        _verify_labels(config.data, masks[: len(train)], masks[len(train) :], named=bool(names))
        names = names or numbered_class_names(masks)
    return replace(found, train=train, val=val, class_names=names, num_skipped=len(bad))


def numbered_class_names(findings: Sequence[Finding]) -> tuple[str, ...]:
    """`class 0`, `class 1` and so on, up to the largest class index that occurs."""
    return tuple(f"class {index}" for index in range(max(_labels_of(findings), default=-1) + 1))


def _labels_of(findings: Sequence[Finding]) -> set[int]:
    return {label for finding in findings for label in finding.labels}


def usable_set(config: FinetuneConfig) -> LabelledSet:
    """The set that a finished run was trained on. It is scanned again only if files were left out then."""
    return check_set(config) if config.skip_bad else find_set(config.data, config.task)


def label_rules(found: LabelledSet, config: FinetuneConfig) -> LabelRules:
    """The rules for the labels of a set."""
    return LabelRules(
        task=config.task,
        num_classes=len(found.class_names),
        reduce_zero_label=found.reduce_zero_label,
        ignored_label=found.ignored_label,
        max_depth_m=config.max_depth_m,
        depth_units_per_m=config.depth_units_per_m,
    )


def describe_bad(root: Path, bad: Sequence[Finding], num_pairs: int) -> str:
    """A message with the number of unusable pairs by kind, and the first ten of them by file."""
    lines = [f"{root}: {len(bad)} of {num_pairs} pairs cannot be used: {count_kinds(bad)}"]
    lines += [f"  {finding.message}" for finding in bad[:_NUM_SHOWN]]
    return "\n".join(lines + ([f"  ... and {len(bad) - _NUM_SHOWN} more"] if len(bad) > _NUM_SHOWN else []))


def count_kinds(bad: Sequence[Finding]) -> str:
    """Numbers by kind, such as `3 no mask, 1 other size`."""
    return ", ".join(f"{count} {kind}" for kind, count in Counter(finding.kind for finding in bad).most_common())


def scan_pairs(pairs: Sequence[Pair], rules: LabelRules, root: Path) -> list[Finding]:
    """A finding for each pair, in order, cached by the rules and by the sizes and times of both files."""
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
    """The class indices that occur."""
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
    """Raises UnusableFile where the readings suggest another unit: nearly all too far, or right before the lens."""
    readings = depth_m[depth_m > 0]
    if not readings.size:
        raise UnusableFile("no depth reading", f"{path}: depth: found zeros only, which mean no reading")
    furthest = rules.max_depth_m
    nearest_m, median_m, furthest_m = (float(value) for value in (readings.min(), np.median(readings), readings.max()))
    beyond = float((readings >= furthest).mean())  # which no metric counts
    if beyond > _MAX_SHARE_BEYOND or median_m < furthest * _MIN_MEDIAN_SHARE:
        raise UnusableFile(
            "depth scale",
            f"{path}: depth: found {nearest_m:.3g} to {furthest_m:.3g} m, half of it within {median_m:.3g} m, expected "
            f"readings up to {furthest:g} m; check --depth-units-per-m (now {rules.depth_units_per_m:g}) and "
            "--max-depth-m",
        )


def _fit_to_crop(pair: Pair, finding: Finding, config: FinetuneConfig) -> Finding:
    """Refuse a depth image smaller than the crop: training neither rescales nor pads depth."""
    if finding.kind or config.task != "depth":
        return finding
    if finding.height_px >= config.crop_size_px[0] and finding.width_px >= config.crop_size_px[1]:
        return finding
    message = (f"{pair.image}: size: found {finding.height_px}x{finding.width_px}, expected at least --crop-size-px "
               f"{config.crop_size_px[0]} {config.crop_size_px[1]}; lower it")  # fmt: skip
    return finding._replace(kind="smaller than the crop", message=message)


def _usable(pairs: tuple[Pair, ...], good: list[bool]) -> tuple[Pair, ...]:
    return tuple(pair for pair, is_good in zip(pairs, good, strict=True) if is_good)


def _warn_of_unlabelled(root: Path, masks: Sequence[Finding]) -> None:
    count = sum(not mask.labels for mask in masks)
    if 0 < count < len(masks):
        print(f"{root}: warning: in {count} of {len(masks)} masks every pixel is ignored", file=sys.stderr)


def _verify_labels(root: Path, train: Sequence[Finding], val: Sequence[Finding], *, named: bool) -> None:
    """Raises ValueError where usable masks have no class to learn or to measure, or do not hold class indices."""
    for masks, what in ((train, "training"), (val, "held-out")):
        if masks and not _labels_of(masks):
            raise ValueError(f"{root}: labels: found no class in any of {len(masks)} {what} masks: every pixel is "
                             f"ignored ({IGNORE_INDEX}); correct the masks or the class names")  # fmt: skip
    if not train:
        return
    if max(_labels_of(train)) < 1:  # masks of 0 and 255 for two classes, for example
        raise ValueError(f"{root}: labels: found class 0 alone in all {len(train)} training masks (and "
                         f"{IGNORE_INDEX}, which means ignored), expected at least two classes; indices count from "
                         "0, so a mask of two classes holds 0 and 1")  # fmt: skip
    present = sorted(_labels_of([*train, *val]))
    if not named and len(present) <= present[-1] * _MIN_SHARE_PRESENT:  # masks scaled for the eye, for example
        shown = ", ".join(map(str, present[:6])) + (", ..." if len(present) > 6 else "")
        raise ValueError(f"{root}: labels: found {len(present)} values in all masks ({shown}), expected class indices "
                         f"without gaps from 0, not {present[-1] + 1} classes; give the classes the indices 0 to "
                         f"{len(present) - 1}, or name all {present[-1] + 1} with --class-names")  # fmt: skip


def _finding_from_json(answer: Any) -> Finding | None:
    """A finding from its cached JSON, in which tuples are lists; None where it is damaged."""
    try:
        finding = Finding(*answer)
        finding = finding._replace(labels=tuple(finding.labels))
    except (TypeError, ValueError):
        return None
    if [type(value) for value in finding] != [str, str, int, int, tuple]:
        return None
    return finding if all(type(label) is int for label in finding.labels) else None
