"""Labelled data sets as they are published, found by their layout.

    ADE20K    images/{training,validation}, annotations/{training,validation}, objectInfo150.txt or .csv
    CamVid    train, trainannot, val, valannot: as SegNet's tutorial publishes it
    VOC       JPEGImages, SegmentationClass, ImageSets/Segmentation/{train,val}.txt
    NYUv2     nyu_depth_v2_labeled.mat beside splits.mat; the split files of BTS with the folders they name;
              images/{train,test}, annotations/{train,test} (mmsegmentation); rgb/rgb_N, depth/sync_depth_N

A folder of a user's own has ADE20K's shape without the class file (class indices from 0, 255 ignored), or
mmsegmentation's shape of NYUv2 (16-bit PNG).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from mobileclip_dense.artifact.palette import IGNORE_INDEX
from mobileclip_dense.artifact.text import read_lines
from mobileclip_dense.config import Task
from mobileclip_dense.data.labelled import nyu
from mobileclip_dense.data.labelled.class_names import read_class_names
from mobileclip_dense.data.labelled.pairs import Pair, pair_by_name

ADE_CLASS_FILES = ("objectInfo150.txt", "objectInfo150.csv")
CAMVID_CLASSES = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian",
                  "cyclist")  # fmt: skip
VOC_CLASSES = ("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
               "dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train",
               "tv monitor")  # fmt: skip
_UNPACKED = ("ADEChallengeData2016", "CamVid", "VOCdevkit/VOC2012", "VOC2012", "nyu_depth_v2", "nyu")


@dataclass(frozen=True, kw_only=True)
class LabelledSet:
    """Pairs to train on and pairs held out, sorted by name, split as published.

    Attributes:
        layout: its name. class_names: by class index; empty for depth, and where the folder names none before the scan.
        reduce_zero_label: ADE20K's convention. ignored_label: the index that means no class, beside 255.
        num_skipped: pairs left out by the scan.
    """

    layout: str
    train: tuple[Pair, ...]
    val: tuple[Pair, ...]
    class_names: tuple[str, ...] = ()
    reduce_zero_label: bool = False
    ignored_label: int = IGNORE_INDEX
    num_skipped: int = 0

    @property
    def num_train(self) -> int:
        return len(self.train)

    @property
    def num_val(self) -> int:
        return len(self.val)


def find_set(root: Path, task: Task, class_names: Path | None = None) -> LabelledSet:
    """What lies at `root`, which may also be the folder around the one that an archive unpacks to; files unread.

    `train` or `val` may be empty. The labelled .mat file of NYUv2 is unpacked the first time.

    Args:
        class_names: a file of `read_class_names`, in place of what the folder says.

    Raises:
        FileNotFoundError: no such folder, or no layout that is known; the message lists what was looked for.
        ValueError: a list of files or names cannot be read.
    """
    if task not in _FINDERS:
        raise ValueError(f"{root}: --data: found task {task}, expected one with a label for each pixel")
    if not root.exists():
        raise FileNotFoundError(f"{root}: --data: no such file or folder")
    finders = _FINDERS[task]
    for folder in (root, *(root / name for name in _UNPACKED)):
        for finder in finders:
            found = finder(folder)
            if found is not None:
                return found if class_names is None else _renamed(found, class_names)
    present = ", ".join(sorted(path.name for path in root.iterdir())[:10]) if root.is_dir() else "a file"
    raise FileNotFoundError(f"{root}: --data: found {present or 'nothing'}, expected for task {task} one of: "
                            f"{'; '.join(finders.values())}")  # fmt: skip


def _renamed(found: LabelledSet, path: Path) -> LabelledSet:
    names, first_index = read_class_names(path)
    return replace(
        found,
        class_names=names,
        reduce_zero_label=found.reduce_zero_label if first_index is None else first_index == 1,
        # The layout's own index of no class may be one of these names' classes.
        ignored_label=IGNORE_INDEX if first_index == 1 or found.ignored_label < len(names) else found.ignored_label,
    )


def _find_ade(root: Path) -> LabelledSet | None:
    train, val = (pair_by_name(root / "images" / split, root / "annotations" / split)
                  for split in ("training", "validation"))  # fmt: skip
    if not train and not val:
        return None
    for name in ADE_CLASS_FILES:
        if (root / name).is_file():
            names, first_index = read_class_names(root / name)
            if first_index != 1:
                raise ValueError(f"{root / name}: classes: found the first index {first_index}, expected 1")
            return LabelledSet(layout="ADE20K", train=train, val=val, class_names=names, reduce_zero_label=True)
    return LabelledSet(layout="folder of your own", train=train, val=val)


def _find_camvid(root: Path) -> LabelledSet | None:
    if not any((root / f"{split}annot").is_dir() for split in ("train", "val")):
        return None
    train, val = (pair_by_name(root / split, root / f"{split}annot") for split in ("train", "val"))
    return LabelledSet(
        layout="CamVid", train=train, val=val, class_names=CAMVID_CLASSES, ignored_label=len(CAMVID_CLASSES)
    )


def _find_voc(root: Path) -> LabelledSet | None:
    if not (root / "JPEGImages").is_dir() or not (root / "SegmentationClass").is_dir():
        return None
    train, val = (_read_voc_list(root, split) for split in ("train", "val"))
    return LabelledSet(layout="VOC", train=train, val=val, class_names=VOC_CLASSES)


def _read_voc_list(root: Path, split: str) -> tuple[Pair, ...]:
    path = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    if not path.is_file():
        return ()
    names = sorted(line.strip() for line in read_lines(path, "VOC list") if line.strip())
    return tuple(
        Pair(root / "JPEGImages" / f"{name}.jpg", root / "SegmentationClass" / f"{name}.png") for name in names
    )


def _find_depth_folder(root: Path) -> LabelledSet | None:
    train, val = (pair_by_name(root / "images" / split, root / "annotations" / split) for split in ("train", "test"))
    return LabelledSet(layout="NYUv2, images and annotations", train=train, val=val) if train or val else None


def _find_nyu_lists(root: Path) -> LabelledSet | None:
    found = nyu.read_split_files(root)
    return None if found is None else LabelledSet(layout="NYUv2, split files", train=found[0], val=found[1])


def _find_nyu_pictures(root: Path) -> LabelledSet | None:
    """Pictures of NYUv2 as they were synchronized, without a split: what is in both would be no test."""
    pairs = nyu.list_synchronized(root)
    return LabelledSet(layout="NYUv2, pictures without a split", train=(), val=pairs) if pairs else None


def _find_nyu_mat(root: Path) -> LabelledSet | None:
    mat = root if root.suffix == ".mat" else root / nyu.LABELLED_FILE
    if not mat.is_file():
        return None
    unpacked = _find_depth_folder(nyu.unpack(mat))
    assert unpacked is not None
    return replace(unpacked, layout="NYUv2, labelled .mat")


_FINDERS: dict[Task, dict[Callable[[Path], LabelledSet | None], str]] = {
    "segment": {
        _find_ade: "images/{training,validation} and annotations/{training,validation} (ADE20K, or a folder of your "
        "own)",
        _find_camvid: "train, trainannot, val, valannot (CamVid)",
        _find_voc: "JPEGImages, SegmentationClass, ImageSets/Segmentation (VOC)",
    },
    "depth": {
        _find_nyu_lists: f"{nyu.TRAIN_LISTS[0]}, {nyu.TEST_LISTS[0]} (NYUv2 of the depth papers)",
        _find_depth_folder: "images/{train,test} and annotations/{train,test} (NYUv2 of mmsegmentation, or a folder of "
        "your own)",
        _find_nyu_pictures: "rgb/rgb_N.jpg and depth/sync_depth_N.png (pictures of NYUv2, to evaluate on)",
        _find_nyu_mat: f"{nyu.LABELLED_FILE} (NYUv2's labelled file)",
    },
}
