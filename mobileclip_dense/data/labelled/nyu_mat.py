"""NYU Depth v2's labelled .mat file, unpacked into pictures."""

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
            raise FileExistsError(
                f"{folder}: found a folder that is not {mat.name} unpacked, which would go there; move it away"
            )
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
                raise ValueError(
                    f"{mat}: found {len(images)} pictures, expected all that splits.mat names, up to "
                    f"{max(number for number, _ in wanted)}"
                )
            for number, split in progress_bar(wanted, f"unpack {mat.name}", unit="image"):
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
    """Depth in millimetres; 0, no reading, where it is not finite, negative or too far for 16 bits."""
    millimetres = np.rint(depth_m.astype(np.float64) * 1000)
    return np.where((millimetres > 0) & (millimetres < 65536), millimetres, 0).astype(np.uint16)
