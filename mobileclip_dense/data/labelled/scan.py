"""Scan of a labelled set: every file is opened and checked before training. The findings are cached."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mobileclip_dense.artifact.palette import IGNORE_INDEX
from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.data.labelled.labelled_set import LabelledSet
from mobileclip_dense.data.labelled.layouts import find_set
from mobileclip_dense.data.labelled.pair_scan import Finding, LabelRules, scan_pairs
from mobileclip_dense.data.labelled.pairs import Pair

_NUM_SHOWN = 10
_MIN_SHARE_PRESENT = 0.5  # of the class indices up to the largest, without class names


def check_set(config: FinetuneConfig) -> LabelledSet:
    """Find the set at `config.data`, limit it to `max_train_images` and check every file.

    Raises:
        FileNotFoundError: see `find_set`.
        ValueError: see `find_set` and `check_pairs`; or there are no training or no held-out images.
    """
    found = find_set(config.data, config.task, config.class_names)
    verify_splits(found, config.data)
    return check_pairs(replace(found, train=found.train[: config.max_train_images]), config)


def verify_splits(found: LabelledSet, root: Path) -> None:
    """Raises ValueError if there are no training or no held-out images."""
    for pairs, what in ((found.train, "training"), (found.val, "held-out")):
        if not pairs:
            raise ValueError(f"{root}: found {found.layout} with {len(found.train)} training and {len(found.val)} "
                             f"held-out images, expected {what} images (`evaluate --data` needs only held-out images)"
                             )  # fmt: skip


def check_pairs(found: LabelledSet, config: FinetuneConfig) -> LabelledSet:
    """Scan a set and return its usable pairs.

    Raises:
        ValueError: see `usable_pairs`.
    """
    return usable_pairs(found, scan_set(found, config), config)


def scan_set(found: LabelledSet, config: FinetuneConfig) -> list[Finding]:
    """The findings of all pairs, training pairs first.

    Raises:
        ValueError: the set is empty.
    """
    if not found.train and not found.val:
        raise ValueError(f"{config.data}: found {found.layout} without an image")
    findings = scan_pairs(found.train + found.val, label_rules(found, config), config.data)
    for index, pair in enumerate(found.train):
        findings[index] = _fit_to_crop(pair, findings[index], config)
    return findings


def usable_pairs(found: LabelledSet, findings: Sequence[Finding], config: FinetuneConfig) -> LabelledSet:
    """The set without unusable pairs (if `config.skip_bad`), and with numbered class names if it has no names.

    Args:
        found: the set.
        findings: its findings, see `scan_set`.
        config: settings of fine-tuning.

    Raises:
        ValueError: there are unusable files (the message lists the first ten and the number of each kind), no pairs
            remain without them, no mask contains a class, or the masks do not contain class indices.
    """
    names = found.class_names
    bad = [finding for finding in findings if finding.kind]
    if bad and not config.skip_bad:
        raise ValueError(
            f"{describe_bad(config.data, bad, len(findings))}\nCorrect them, or skip them with --skip-bad."
        )
    good = [not finding.kind for finding in findings]
    train = _usable(found.train, good[: len(found.train)])
    val = _usable(found.val, good[len(found.train) :])
    if (found.train and not train) or (found.val and not val):
        raise ValueError(f"{describe_bad(config.data, bad, len(findings))}\nWithout them, {len(train)} training and "
                         f"{len(val)} held-out images remain.")  # fmt: skip
    if bad:
        print(f"{config.data}: skipped {len(bad)} of {len(findings)} pairs: {count_kinds(bad)}")
    if config.task == "segment":
        masks = [finding for finding in findings if not finding.kind]
        _warn_of_unlabelled(config.data, masks)
        _verify_labels(config.data, masks[: len(train)], masks[len(train) :], named=bool(names))
        names = names or numbered_class_names(masks)
    return replace(found, train=train, val=val, class_names=names, num_skipped=len(bad))


def numbered_class_names(findings: Sequence[Finding]) -> tuple[str, ...]:
    """The names `class 0`, `class 1`, ..., up to the largest class index that occurs."""
    return tuple(f"class {index}" for index in range(max(_labels_of(findings), default=-1) + 1))


def _labels_of(findings: Sequence[Finding]) -> set[int]:
    return {label for finding in findings for label in finding.labels}


def usable_set(config: FinetuneConfig) -> LabelledSet:
    """The set that a completed run was trained on. It is scanned again only if `config.skip_bad`."""
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
    """A message with the number of unusable pairs by kind, and the first ten files."""
    lines = [f"{root}: {len(bad)} of {num_pairs} pairs cannot be used: {count_kinds(bad)}"]
    lines += [f"  {finding.message}" for finding in bad[:_NUM_SHOWN]]
    return "\n".join(lines + ([f"  ... and {len(bad) - _NUM_SHOWN} more"] if len(bad) > _NUM_SHOWN else []))


def count_kinds(bad: Sequence[Finding]) -> str:
    """Counts by kind, e.g. `3 no mask, 1 other size`."""
    return ", ".join(f"{count} {kind}" for kind, count in Counter(finding.kind for finding in bad).most_common())


def _fit_to_crop(pair: Pair, finding: Finding, config: FinetuneConfig) -> Finding:
    """Mark a depth image smaller than the crop as unusable: training neither resizes nor pads depth."""
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
    """Raises ValueError if the usable masks have no class to train or evaluate on, or do not contain class indices."""
    for masks, what in ((train, "training"), (val, "held-out")):
        if masks and not _labels_of(masks):
            raise ValueError(f"{root}: labels: found no class in any of {len(masks)} {what} masks: every pixel is "
                             f"ignored ({IGNORE_INDEX}); correct the masks or the class names")  # fmt: skip
    if not train:
        return
    if max(_labels_of(train)) < 1:  # for example masks of two classes stored as 0 and 255
        raise ValueError(f"{root}: labels: found only class 0 in all {len(train)} training masks ({IGNORE_INDEX} is "
                         "ignored), expected at least two classes; a mask of two classes contains the indices 0 and 1"
                         )  # fmt: skip
    present = sorted(_labels_of([*train, *val]))
    if not named and len(present) <= present[-1] * _MIN_SHARE_PRESENT:  # for example masks scaled for viewing
        shown = ", ".join(map(str, present[:6])) + (", ..." if len(present) > 6 else "")
        raise ValueError(f"{root}: labels: found {len(present)} values in all masks ({shown}), expected class indices "
                         f"without gaps from 0, not {present[-1] + 1} classes; give the classes the indices 0 to "
                         f"{len(present) - 1}, or name all {present[-1] + 1} with --class-names")  # fmt: skip
