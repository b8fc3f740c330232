"""Pascal VOC 2012 (Everingham 2015), segmentation."""

from pathlib import Path

from mobileclip_dense.artifact.text import read_lines
from mobileclip_dense.data.labelled.labelled_set import LabelledSet, Layout
from mobileclip_dense.data.labelled.pairs import Pair

_CLASSES = ("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
            "dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train",
            "tv monitor")  # fmt: skip


def _find(root: Path) -> LabelledSet | None:
    if not (root / "JPEGImages").is_dir() or not (root / "SegmentationClass").is_dir():
        return None
    train, val = (_read_list(root, split) for split in ("train", "val"))
    return LabelledSet(train=train, val=val, class_names=_CLASSES)


def _read_list(root: Path, split: str) -> tuple[Pair, ...]:
    path = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    if not path.is_file():
        return ()
    names = sorted(line.strip() for line in read_lines(path, "VOC list") if line.strip())
    return tuple(
        Pair(root / "JPEGImages" / f"{name}.jpg", root / "SegmentationClass" / f"{name}.png") for name in names
    )


VOC = Layout(
    name="VOC",
    task="segment",
    recognised_by="JPEGImages, SegmentationClass, ImageSets/Segmentation/{train,val}.txt",
    find=_find,
    data_set="voc",
    sources=("http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",),
    licence="images under the terms of use of Flickr",
    num_images=(1_464, 1_449),
    unpacked_folders=("VOCdevkit/VOC2012", "VOC2012"),
)
