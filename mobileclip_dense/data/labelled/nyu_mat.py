"""Unpacking of NYU Depth v2's labelled .mat file into images."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mobileclip_dense.artifact.files import read_json, write_json
from mobileclip_dense.artifact.outputs import UNPACKED, staged_folder
from mobileclip_dense.pages.progress import progress_bar

LABELLED_FILE = "nyu_depth_v2_labeled.mat"
_SPLITS_URL = "http://horatio.cs.nyu.edu/mit/silberman/indoor_seg_sup/splits.mat"


def unpack(mat: Path) -> Path:
    """Unpack the labelled .mat file to a folder of the same name next to it, in mmsegmentation's layout.

    Writes images/{train,test}/NNNN.png and annotations/{train,test}/NNNN.png (16 bit, millimetres), numbered from 1 as
    in the file and split by splits.mat next to it. Depth is the sensor's (rawDepths), in which pixels without a
    measurement are 0, as used by the depth papers (Lee 2019; their images have a black frame, these do not). The folder
    is written on first use, and again if either file has changed.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: splits.mat is missing.
        ValueError: a file is damaged or is another file.
        FileExistsError: the folder exists and was not unpacked from this file.
    """
    folder, splits = mat.with_suffix(""), mat.parent / "splits.mat"
    if not splits.is_file():
        raise FileNotFoundError(f"{splits}: no such file, expected next to {mat.name}; get it from {_SPLITS_URL}")
    source = {path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in (mat, splits)}
    if folder.exists():
        record = folder / "source.json"
        if not record.is_file():
            raise FileExistsError(
                f"{folder}: found a folder that was not unpacked from {mat.name}, expected none; move or rename it"
            )
        if read_json(record) == source:
            return folder
    numbers = _read_splits(splits)
    with staged_folder(folder, UNPACKED, force=True, inputs={"--data": mat}) as staging:
        _write_pictures(mat, numbers, staging)
        write_json(staging / "source.json", source)
    return folder


def _read_splits(path: Path) -> dict[str, list[int]]:
    """Numbers of the images (from 1) by split."""
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
                raise ValueError(
                    f"{mat}: found {len(images)} images, expected at least {max(number for number, _ in wanted)}, the "
                    "largest number in splits.mat"
                )
            for number, split in progress_bar(wanted, f"unpack {mat.name}", unit="image"):
                name = f"{split}/{number:04d}.png"
                # MATLAB is column-major: an image is [3,W,H] here, a depth map [W,H].
                image = np.ascontiguousarray(images[number - 1].transpose(2, 1, 0))
                Image.fromarray(image).save(folder / "images" / name, compress_level=1)
                depth = Image.fromarray(_millimetres(depths[number - 1].T))
                depth.save(folder / "annotations" / name, compress_level=1)
    except OSError as error:
        raise ValueError(f"{mat}: cannot be unpacked ({error}); is the file complete, or is the disk full?") from None


def _datasets(mat: Path, file: Any) -> tuple[Any, Any]:
    missing = [name for name in ("images", "rawDepths") if name not in file]
    if missing:
        raise ValueError(
            f"{mat}: found {', '.join(file)[:200]}, expected images and rawDepths; {' and '.join(missing)} missing"
        )
    images, depths = file["images"], file["rawDepths"]
    expected = (len(images), *images.shape[2:])
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != np.uint8 or depths.shape != expected:
        raise ValueError(
            f"{mat}: found images {images.dtype} {images.shape} and rawDepths {depths.shape}, expected "
            "uint8 [N,3,W,H] and [N,W,H]"
        )
    return images, depths


def _millimetres(depth_m: npt.NDArray[np.floating]) -> npt.NDArray[np.uint16]:
    """Convert depth to millimetres. Values that are not finite, not positive or too large for 16 bits become 0."""
    millimetres = np.rint(depth_m.astype(np.float64) * 1000)
    return np.where((millimetres > 0) & (millimetres < 65536), millimetres, 0).astype(np.uint16)
