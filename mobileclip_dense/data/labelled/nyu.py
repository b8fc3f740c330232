"""NYU Depth v2 (Silberman 2012) in its published layouts.

labelled .mat file      nyu_depth_v2_labeled.mat next to splits.mat
depth papers            the split files of BTS (Lee 2019) and the folders they refer to
mmsegmentation          images/{train,test}, annotations/{train,test}; also for the user's own depth data
synchronized images     rgb/rgb_N.jpg, depth/sync_depth_N.png
"""

import re
from pathlib import Path

from mobileclip_dense.artifact.text import read_lines
from mobileclip_dense.data.labelled.labelled_set import LabelledSet, Layout
from mobileclip_dense.data.labelled.nyu_mat import LABELLED_FILE, unpack
from mobileclip_dense.data.labelled.pairs import Pair, pair_splits

_TRAIN_LISTS = ("nyudepthv2_train_files_with_gt_dense.txt", "nyudepthv2_train_files_with_gt.txt", "nyu_train.txt",
                "train_list.txt")  # fmt: skip
_TEST_LISTS = ("nyudepthv2_test_files_with_gt.txt", "nyudepthv2_test_files_with_gt_dense.txt", "nyu_test.txt",
               "test_list.txt")  # fmt: skip
_LIST_FOLDERS = ("", "train_test_inputs", "filenames", "filenames/nyudepthv2", "splits")
_IMAGE_FOLDERS = ("", "sync", "train", "official_splits/test", "test", "nyu_depth_v2/sync",
                  "nyu_depth_v2/official_splits/test")  # fmt: skip
_SOURCES = (
    "http://horatio.cs.nyu.edu/mit/silberman/nyu_depth_v2/nyu_depth_v2_labeled.mat (the labelled 1449 pictures)",
    "http://horatio.cs.nyu.edu/mit/silberman/indoor_seg_sup/splits.mat (which of them are held out)",
    "https://github.com/cleinc/bts (24,231 training pictures of the depth papers, and the lists)",
)


def _find_split_files(root: Path) -> LabelledSet | None:
    """Training and test pairs from the lists of BTS (Lee 2019), which AdaBins, MIM-Depth and others also use.

    A line has image, depth map and focal length: `/kitchen/rgb_00045.jpg /kitchen/sync_depth_00045.png 518.8579`. Paths
    are relative to the folder of the split (sync, official_splits/test, ...). Pairs are sorted by name. None if there
    is no list.

    Raises:
        FileNotFoundError: no folder contains the images of a list.
        ValueError: a line has another form.
    """
    lists = [_first_list(root, names) for names in (_TRAIN_LISTS, _TEST_LISTS)]
    if lists == [None, None]:
        return None
    train, test = (() if path is None else _read_list(root, path) for path in lists)
    return LabelledSet(train=train, val=test)


def _first_list(root: Path, names: tuple[str, ...]) -> Path | None:
    candidates = (root / folder / name for name in names for folder in _LIST_FOLDERS)
    return next((path for path in candidates if path.is_file()), None)


def _read_list(root: Path, path: Path) -> tuple[Pair, ...]:
    relative = []
    for number, line in enumerate(read_lines(path, "NYUv2 list"), start=1):
        if not line.strip():
            continue
        fields = re.split(r"[ \t]+", line.strip(" \t"))  # split() also splits at Unicode spaces
        if len(fields) not in (2, 3):
            raise ValueError(f"{path}: line {number}: found {line!r}, expected `IMAGE DEPTH FOCAL_LENGTH`")
        relative.append((fields[0].lstrip("/"), fields[1].lstrip("/")))
    if not relative:
        raise ValueError(f"{path}: found an empty file, expected a line `IMAGE DEPTH FOCAL_LENGTH` for each image")
    # Some files may be missing (the scan reports them), so the folder with most of the first images is used.
    first = relative[:20]
    folders = [root / folder for folder in _IMAGE_FOLDERS]
    present = [sum((folder / image).is_file() for image, _ in first) for folder in folders]
    if not any(present):
        raise FileNotFoundError(
            f"{path}: {first[0][0]}: no such file in {root} or its folders "
            f"{', '.join(_IMAGE_FOLDERS[1:])}; unpack the images there"
        )
    folder = folders[present.index(max(present))]
    return tuple(Pair(folder / image, folder / depth) for image, depth in sorted(relative))


def _find_folder(root: Path) -> LabelledSet | None:
    train, val = pair_splits(root, "train", "test")
    return LabelledSet(train=train, val=val) if train or val else None


def _find_synchronized(root: Path) -> LabelledSet | None:
    """Synchronized images without a split. All of them are held out."""
    if not (root / "depth").is_dir():
        return None
    images = sorted(path for suffix in ("jpg", "png") for path in (root / "rgb").glob(f"rgb_*.{suffix}"))
    pairs = (Pair(image, root / "depth" / f"sync_depth_{image.stem.removeprefix('rgb_')}.png") for image in images)
    return LabelledSet(train=(), val=tuple(pairs)) if images else None


def _find_mat(root: Path) -> LabelledSet | None:
    mat = root if root.suffix == ".mat" else root / LABELLED_FILE
    return _find_folder(unpack(mat)) if mat.is_file() else None


NYU_SPLIT_FILES = Layout(
    name="NYUv2, split files",
    task="depth",
    recognised_by=f"{_TRAIN_LISTS[0]}, {_TEST_LISTS[0]} (of the depth papers)",
    find=_find_split_files,
    data_set="nyuv2",
    sources=_SOURCES,
    num_images=(24_231, 654),
    unpacked_folders=("nyu_depth_v2", "nyu"),
)
NYU_FOLDER = Layout(
    name="NYUv2, images and annotations",
    task="depth",
    recognised_by="images/{train,test} and annotations/{train,test} (of mmsegmentation, or a folder of your own)",
    find=_find_folder,
    data_set="nyuv2",
    sources=_SOURCES,
    num_images=(24_231, 654),
)
NYU_SYNCHRONIZED = Layout(
    name="NYUv2, pictures without a split",
    task="depth",
    recognised_by="rgb/rgb_N.jpg and depth/sync_depth_N.png (to evaluate on)",
    find=_find_synchronized,
    data_set="nyuv2",
    sources=_SOURCES,
)
NYU_MAT = Layout(
    name="NYUv2, labelled .mat",
    task="depth",
    recognised_by=f"{LABELLED_FILE} beside splits.mat",
    find=_find_mat,
    data_set="nyuv2",
    sources=_SOURCES,
    num_images=(795, 654),
)
