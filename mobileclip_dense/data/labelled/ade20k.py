"""ADE20K's scene parsing benchmark (Zhou 2017)."""

from pathlib import Path

from mobileclip_dense.data.labelled.class_names import read_class_names
from mobileclip_dense.data.labelled.folder import OWN_SEGMENTATION
from mobileclip_dense.data.labelled.labelled_set import LabelledSet, Layout
from mobileclip_dense.data.labelled.pairs import pair_splits

_CLASS_FILES = ("objectInfo150.txt", "objectInfo150.csv")


def _find(root: Path) -> LabelledSet | None:
    train, val = pair_splits(root, "training", "validation")
    class_file = next((root / name for name in _CLASS_FILES if (root / name).is_file()), None)
    if class_file is None or not (train or val):
        return None
    names, first_index = read_class_names(class_file)
    if first_index != 1:
        raise ValueError(f"{class_file}: classes: found the first index {first_index}, expected 1")
    return LabelledSet(train=train, val=val, class_names=names, reduce_zero_label=True)


ADE20K = Layout(
    name="ADE20K",
    task="segment",
    recognised_by=f"{OWN_SEGMENTATION.recognised_by}, {_CLASS_FILES[0]} or .csv",
    find=_find,
    data_set="ade20k",
    sources=("http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",),
    licence="images for non-commercial research and education, annotations BSD-3-Clause",
    num_images=(20_210, 2_000),
    unpacked_folders=("ADEChallengeData2016",),
)
