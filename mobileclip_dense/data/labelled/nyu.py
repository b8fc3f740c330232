"""NYU Depth v2 (Silberman 2012): the labelled .mat file, the lists of the depth papers, synchronized pictures."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from mobileclip_dense.artifact.files import read_json, write_json
from mobileclip_dense.artifact.outputs import UNPACKED, staged_folder
from mobileclip_dense.artifact.text import read_lines
from mobileclip_dense.data.labelled.pairs import Pair

LABELLED_FILE = "nyu_depth_v2_labeled.mat"
TRAIN_LISTS = ("nyudepthv2_train_files_with_gt_dense.txt", "nyudepthv2_train_files_with_gt.txt", "nyu_train.txt",
               "train_list.txt")  # fmt: skip
TEST_LISTS = ("nyudepthv2_test_files_with_gt.txt", "nyudepthv2_test_files_with_gt_dense.txt", "nyu_test.txt",
              "test_list.txt")  # fmt: skip
_LIST_FOLDERS = ("", "train_test_inputs", "filenames", "filenames/nyudepthv2", "splits")
_IMAGE_FOLDERS = ("", "sync", "train", "official_splits/test", "test", "nyu_depth_v2/sync",
                  "nyu_depth_v2/official_splits/test")  # fmt: skip
_SPLITS_URL = "http://horatio.cs.nyu.edu/mit/silberman/indoor_seg_sup/splits.mat"


def read_split_files(root: Path) -> tuple[tuple[Pair, ...], tuple[Pair, ...]] | None:
    """Training and test pairs by the lists of BTS (Lee 2019), which AdaBins, MIM-Depth and others share.

    A line is `/kitchen/rgb_00045.jpg /kitchen/sync_depth_00045.png 518.8579`: image, depth, focal length, relative to
    the folder of that split (sync, official_splits/test, ...), sorted here by name. None where there is neither list.

    Raises:
        FileNotFoundError: the images of a list are in none of these folders. ValueError: a line is no such line.
    """
    lists = [_first_list(root, names) for names in (TRAIN_LISTS, TEST_LISTS)]
    if lists == [None, None]:
        return None
    train, test = (() if path is None else _read_list(root, path) for path in lists)
    return train, test


def _first_list(root: Path, names: tuple[str, ...]) -> Path | None:
    candidates = (root / folder / name for name in names for folder in _LIST_FOLDERS)
    return next((path for path in candidates if path.is_file()), None)


def _read_list(root: Path, path: Path) -> tuple[Pair, ...]:
    relative = []
    for number, line in enumerate(read_lines(path, "NYUv2 list"), start=1):
        if not line.strip():
            continue
        fields = re.split(r"[ \t]+", line.strip(" \t"))  # `split()` also cuts at separators that a name may hold
        if len(fields) not in (2, 3):
            raise ValueError(f"{path}: line {number}: found {line!r}, expected `IMAGE DEPTH FOCAL_LENGTH`")
        relative.append((fields[0].lstrip("/"), fields[1].lstrip("/")))
    if not relative:
        raise ValueError(f"{path}: found no line, expected `IMAGE DEPTH FOCAL_LENGTH` for each picture")
    # A few files may be missing, which the scan says; so the folder is the one that has most of the first.
    first = relative[:20]
    folders = [root / folder for folder in _IMAGE_FOLDERS]
    present = [sum((folder / image).is_file() for image, _ in first) for folder in folders]
    if not any(present):
        raise FileNotFoundError(f"{path}: {first[0][0]}: no such file in {root} or its folders "
                                f"{', '.join(_IMAGE_FOLDERS[1:])}; unpack the pictures there")  # fmt: skip
    folder = folders[present.index(max(present))]
    return tuple(Pair(folder / image, folder / depth) for image, depth in sorted(relative))


def list_synchronized(root: Path) -> tuple[Pair, ...]:
    """rgb/rgb_N.jpg with depth/sync_depth_N.png, sorted by name; none where there are no such folders."""
    if not (root / "depth").is_dir():
        return ()
    images = sorted(path for suffix in ("jpg", "png") for path in (root / "rgb").glob(f"rgb_*.{suffix}"))
    return tuple(Pair(image, root / "depth" / f"sync_depth_{image.stem.removeprefix('rgb_')}.png") for image in images)


def unpack(mat: Path) -> Path:
    """The folder beside the labelled .mat file, named like it, with its pictures in mmsegmentation's layout.

    images/{train,test}/NNNN.png, annotations/{train,test}/NNNN.png (16 bit, millimetres), numbered from 1 as in the
    file, split by the splits.mat beside it. Depth is the sensor's (rawDepths), where pixels without a reading are 0, as
    the depth papers measure on (Lee 2019, whose images have a black frame, these have not). It is written the first
    time, and again when either file has changed.

    Raises:
        FileNotFoundError: splits.mat is missing. ValueError: one of the files is not what it should be.
        FileExistsError: the folder is there already, and something else.
    """
    folder, splits = mat.with_suffix(""), mat.parent / "splits.mat"
    if not splits.is_file():
        raise FileNotFoundError(f"{splits}: no such file, expected beside {mat.name}; get it from {_SPLITS_URL}")
    source = {path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in (mat, splits)}
    if folder.exists():
        record = folder / "source.json"
        if not record.is_file():
            raise FileExistsError(f"{folder}: found a folder that is not {mat.name} unpacked, which would go there; "
                                  "move it away")  # fmt: skip
        if read_json(record) == source:
            return folder
    numbers = _read_splits(splits)
    with staged_folder(folder, UNPACKED, force=True, inputs={"--data": mat}) as staging:
        _write_pictures(mat, numbers, staging)
        write_json(staging / "source.json", source)
    return folder


def _read_splits(path: Path) -> dict[str, list[int]]:
    """Numbers of the pictures, from 1, by split."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        values = loadmat(path)
        return {split: [int(n) for n in values[f"{split}Ndxs"].ravel()] for split in ("train", "test")}
    except (MatReadError, ValueError, NotImplementedError, OSError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not the splits of NYUv2, expected trainNdxs and testNdxs ({error})") from None


def _write_pictures(mat: Path, numbers: dict[str, list[int]], folder: Path) -> None:
    import h5py

    for kind in ("images", "annotations"):
        for split in numbers:
            (folder / kind / split).mkdir(parents=True)
    try:
        with h5py.File(mat) as file:
            images, depths = _datasets(mat, file)
            wanted = [(number, split) for split in numbers for number in numbers[split]]
            if not all(1 <= number <= len(images) for number, _ in wanted):
                raise ValueError(f"{mat}: found {len(images)} pictures, expected all that splits.mat names, up to "
                                 f"{max(number for number, _ in wanted)}")  # fmt: skip
            for number, split in tqdm(wanted, unit="image", desc=f"unpack {mat.name}"):
                name = f"{split}/{number:04d}.png"
                # MATLAB stores columns first: an image is [3,W,H] here, a depth map [W,H].
                image = np.ascontiguousarray(images[number - 1].transpose(2, 1, 0))
                Image.fromarray(image).save(folder / "images" / name, compress_level=1)
                depth = Image.fromarray(_millimetres(depths[number - 1].T))
                depth.save(folder / "annotations" / name, compress_level=1)
    except OSError as error:
        raise ValueError(f"{mat}: cannot be unpacked ({error}); is it complete, and is there room beside it?") from None


def _datasets(mat: Path, file: Any) -> tuple[Any, Any]:
    missing = [name for name in ("images", "rawDepths") if name not in file]
    if missing:
        raise ValueError(f"{mat}: found {', '.join(file)[:200]}, expected images and rawDepths; "
                         f"{' and '.join(missing)} missing")  # fmt: skip
    images, depths = file["images"], file["rawDepths"]
    expected = (len(images), *images.shape[2:])
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != np.uint8 or depths.shape != expected:
        raise ValueError(f"{mat}: found images {images.dtype} {images.shape} and rawDepths {depths.shape}, expected "
                         "uint8 [N,3,W,H] and [N,W,H]")  # fmt: skip
    return images, depths


def _millimetres(depth_m: npt.NDArray[np.floating]) -> npt.NDArray[np.uint16]:
    """What is not finite, negative or too far for 16 bits is no reading, 0."""
    millimetres = np.rint(depth_m.astype(np.float64) * 1000)
    return np.where((millimetres > 0) & (millimetres < 65536), millimetres, 0).astype(np.uint16)
