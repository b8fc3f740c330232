"""`mobileclip-dense data check NAME PATH`: report the contents, missing parts and unusable files of a data set."""

import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mobileclip_dense.artifact.palette import IGNORE_INDEX
from mobileclip_dense.config import DataCheckConfig, FinetuneConfig, Task
from mobileclip_dense.data.labelled.coco import CocoSet
from mobileclip_dense.data.labelled.coco_check import check_coco
from mobileclip_dense.data.labelled.labelled_set import LabelledSet, Layout
from mobileclip_dense.data.labelled.layouts import LAYOUTS, find_set, layouts_of, published_names
from mobileclip_dense.data.labelled.pair_scan import Finding
from mobileclip_dense.data.labelled.scan import numbered_class_names, scan_set, usable_pairs, verify_splits
from mobileclip_dense.pages.text_table import format_table

_SMALLEST_CROP_PX = (32, 32)  # `finetune` checks its own crop


def check_data(config: DataCheckConfig) -> None:
    """Print the contents of a data set and check it as `finetune` does.

    Raises:
        FileNotFoundError: there is no such data set at the path.
        ValueError: `finetune` would raise an error for it.
    """
    layouts = layouts_of(config.name)
    task = _task_of(config.name, layouts)
    if task == "detect":
        if config.class_names is not None:
            raise ValueError("--class-names: not supported for COCO, whose annotation files name the classes")
        _check_coco(config.path, layouts[0])
        return
    try:
        found = find_set(config.path, task, config.class_names)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}{_where_to_get(layouts)}") from None
    layout = next((layout for layout in layouts if layout.name == found.layout), None)
    if layouts and layout is None:
        names = " or ".join(layout.name for layout in layouts)
        print(f"note: found the layout {found.layout}, expected {names}")
    settings = FinetuneConfig(data=config.path, out=config.path, task=task, max_depth_m=config.max_depth_m,
                              depth_units_per_m=config.depth_units_per_m, crop_size_px=_SMALLEST_CROP_PX)  # fmt: skip
    findings = scan_set(found, settings)
    _print_table(config.path, layout, task, found, findings)
    usable_pairs(found, findings, settings)
    try:
        verify_splits(found, config.path)
    except ValueError as error:
        raise ValueError(f"{error}{_where_to_get(layouts)}") from None
    print(f"{config.path}: all {len(findings):,} pairs are usable")


def describe_names() -> str:
    """A table of the supported values of NAME, for the help text."""
    rows = [[layout.data_set or layout.task, f"{layout.name}: {layout.recognised_by}"] for layout in LAYOUTS]
    rows.append(["depth", "folder of your own: see nyuv2"])
    # tyro joins lines that are not indented.
    return textwrap.indent(
        format_table(["NAME", "layout and the files by which it is recognised"], rows, max_width=78), "  "
    )


def _task_of(name: str, layouts: Sequence[Layout]) -> Task:
    """The task of a published data set, or of the user's own folder (segment or depth)."""
    own: dict[str, Task] = {"segment": "segment", "depth": "depth"}
    if layouts:
        return layouts[0].task
    if name not in own:
        raise ValueError(f"NAME: found {name}, expected one of {', '.join([*published_names(), *own])}")
    return own[name]


def _print_table(
    root: Path, layout: Layout | None, task: Task, found: LabelledSet, findings: Sequence[Finding]
) -> None:
    print(f"{root}")
    _row("layout", found.layout)
    _print_splits(found, layout)
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


def _print_splits(found: LabelledSet | CocoSet, layout: Layout | None) -> None:
    totals = (layout and layout.num_images) or (0, 0)
    for name, number, total in zip(("training", "held out"), (found.num_train, found.num_val), totals, strict=True):
        _row(name, f"{number:,} images" + (f" of {total:,}" if total and number != total else ""))


def _print_classes(found: LabelledSet, findings: Sequence[Finding]) -> None:
    names = found.class_names or numbered_class_names(findings)
    _row("classes", _listed(names) + ("" if found.class_names else " (name them with --class-names)"))
    void = 0 if found.reduce_zero_label else found.ignored_label
    _row("ignored", "255" if void == IGNORE_INDEX else f"{void} and 255")


def _check_coco(root: Path, layout: Layout) -> None:
    """Check every image and annotation of both splits, as `finetune` does."""
    try:
        coco = check_coco(FinetuneConfig(data=root, out=root, task="detect", head="mask_rcnn"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}{_where_to_get([layout])}") from None
    print(f"{root}")
    _print_splits(coco, layout)
    _row("classes", _listed(coco.class_names))
    print(f"{root}: all images and annotations are usable")


def _listed(names: Sequence[str]) -> str:
    return f"{len(names)}: {', '.join(names[:12])}" + (", ..." if len(names) > 12 else "")


def _row(name: str, value: str) -> None:
    print(f"  {name:<10}{value}")


def _where_to_get(layouts: Sequence[Layout]) -> str:
    """The download addresses of a data set, one per line; empty for the user's own folder."""
    sources = dict.fromkeys(source for layout in layouts for source in layout.sources)
    return "".join(f"\n  get {source}" for source in sources)
