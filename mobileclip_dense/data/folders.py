"""Labelled folders as they are published: what is in them, and whether it can be trained on.

    segmentation  images/{training,validation}/*.jpg   annotations/{training,validation}/*.png  (uint8 class indices)
    depth         images/{train,test}/*.jpg            annotations/{train,test}/*.png           (16 bit, per metre)

With an `objectInfo150.csv` the labels are ADE20K's: 0 is "other" and ignored, 1.. are classes. Without one they are
class indices from 0, and 255 is ignored.
"""

import csv
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from mobileclip_dense.config import FinetuneConfig, Task
from mobileclip_dense.contract.palette import IGNORE_INDEX
from mobileclip_dense.contract.preprocess import load_image

SPLITS: dict[Task, tuple[str, str]] = {"segment": ("training", "validation"), "depth": ("train", "test")}
_ADE_CLASS_FILE = "objectInfo150.csv"


@dataclass(frozen=True, kw_only=True)
class LabelledFolder:
    """A checked folder.

    Attributes:
        class_names: names by class index; empty for depth. reduce_zero_label: ADE20K's convention.
        image_suffix: of all images. num_train, num_val: image counts.
    """

    class_names: tuple[str, ...]
    reduce_zero_label: bool
    image_suffix: str
    num_train: int
    num_val: int


def list_pairs(root: Path, split: str) -> list[tuple[Path, Path]]:
    """Images of a split with their annotation, sorted by name.

    Raises:
        FileNotFoundError: a folder is missing or empty, or an image has no annotation.
    """
    images, annotations = root / "images" / split, root / "annotations" / split
    for folder in (images, annotations):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder; expected images/{split} and annotations/{split} "
                                    f"inside --data")  # fmt: skip
    found = sorted(path for path in images.iterdir() if path.suffix in (".jpg", ".png"))
    if not found:
        raise FileNotFoundError(f"{images}: found no .jpg or .png, expected the {split} images")
    pairs = [(path, annotations / f"{path.stem}.png") for path in found]
    for image, annotation in pairs:
        if not annotation.is_file():
            raise FileNotFoundError(
                f"{annotation}: annotation of {image.name}: no such file; add it or remove the image"
            )
    return pairs


def read_class_labels(path: Path, reduce_zero_label: bool) -> npt.NDArray[np.uint8]:
    """Class map uint8 [H,W] with IGNORE_INDEX where there is no class.

    Raises:
        ValueError: not an 8-bit single-channel PNG.
    """
    labels = _read_annotation(path, ("L", "P"), "an 8-bit single-channel PNG of class indices").astype(np.uint8)
    # uint8 wraps around: 0 - 1 is 255, ADE20K's "other" becomes ignored.
    return labels - np.uint8(1) if reduce_zero_label else labels


def read_depth_m(path: Path, units_per_m: float) -> npt.NDArray[np.float32]:
    """Depth float32 [H,W] in metres, 0 where there is no reading.

    Raises:
        ValueError: not a 16-bit single-channel PNG.
    """
    stored = _read_annotation(path, ("I;16", "I"), f"a 16-bit PNG with {units_per_m:g} units per metre")
    return stored.astype(np.float32) / np.float32(units_per_m)


def _read_annotation(path: Path, modes: tuple[str, ...], expected: str) -> npt.NDArray[np.integer]:
    try:
        with Image.open(path) as image:
            image.load()
            if image.mode not in modes:
                raise ValueError(f"{path}: annotation: found mode {image.mode!r}, expected {expected}")
            return np.asarray(image)
    except UnidentifiedImageError:
        raise ValueError(f"{path}: annotation: not an image; expected {expected}") from None
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path}: annotation: cannot be decoded ({error}); the file is truncated or damaged") from None


def check_folder(config: FinetuneConfig) -> LabelledFolder:
    """Open every image and annotation once, before anything is trained on them.

    Raises:
        FileNotFoundError, ValueError: the first file that cannot be used, by name, with what was expected of it.
    """
    train, val = (list_pairs(config.data, split) for split in SPLITS[config.task])
    train = train[: config.max_train_images]
    suffixes = {image.suffix for image, _ in train + val}
    if len(suffixes) > 1:
        raise ValueError(
            f"{config.data / 'images'}: found both {' and '.join(sorted(suffixes))}; convert to one of them"
        )
    names: tuple[str, ...] = ()
    reduce_zero_label = False
    if config.task == "segment":
        names, reduce_zero_label = _declared_classes(config)
        largest = _scan(train + val, lambda image, label: _check_classes(image, label, names, reduce_zero_label))
        names = names or tuple(f"class {index}" for index in range(max(largest) + 1))
    else:
        _scan(train + val, lambda image, label: _check_depth(image, label, config))
    return LabelledFolder(
        class_names=names, reduce_zero_label=reduce_zero_label, image_suffix=suffixes.pop(),
        num_train=len(train), num_val=len(val),
    )  # fmt: skip


def _scan(pairs: list[tuple[Path, Path]], check: Callable[[Path, Path], int]) -> list[int]:
    with ThreadPoolExecutor() as pool:
        answers = pool.map(lambda pair: check(*pair), pairs)
        return list(tqdm(answers, total=len(pairs), unit="image", desc="check data"))


def _declared_classes(config: FinetuneConfig) -> tuple[tuple[str, ...], bool]:
    """Class names given by flag or by the folder (none if neither), and whether 0 means "other"."""
    ade = config.data / _ADE_CLASS_FILE
    if config.class_names is not None:
        if not config.class_names.is_file():
            raise FileNotFoundError(f"{config.class_names}: --class-names: no such file")
        names = [line.strip() for line in config.class_names.read_text(encoding="utf-8").splitlines() if line.strip()]
        return tuple(names), ade.is_file()
    if ade.is_file():
        with ade.open(encoding="utf-8", newline="") as file:
            return tuple(row["Name"].split(";")[0] for row in csv.DictReader(file)), True
    return (), False


def _check_classes(image_path: Path, label_path: Path, names: tuple[str, ...], reduce_zero_label: bool) -> int:
    """The largest class index in the annotation."""
    image, labels = load_image(image_path), read_class_labels(label_path, reduce_zero_label)
    _check_same_size(image_path, image.shape, label_path, labels.shape)
    known = labels[labels != IGNORE_INDEX]
    largest = int(known.max(initial=0))
    if names and largest >= len(names):
        offset = int(reduce_zero_label)
        expected = f"at most {len(names) - 1 + offset} for {len(names)} classes ({IGNORE_INDEX}: ignored)"
        raise ValueError(
            f"{label_path}: labels: found {largest + offset}, expected {expected}; correct the mask or --class-names"
        )
    return largest


def _check_depth(image_path: Path, label_path: Path, config: FinetuneConfig) -> int:
    image, depth = load_image(image_path), read_depth_m(label_path, config.depth_units_per_m)
    _check_same_size(image_path, image.shape, label_path, depth.shape)
    if not ((depth > 0) & (depth <= config.max_depth_m)).any():
        expected = f"readings between 0 and {config.max_depth_m:g} m"
        raise ValueError(
            f"{label_path}: depth: found {depth.min():g} to {depth.max():g} m, expected {expected}; "
            "check --depth-units-per-m and --max-depth-m"
        )
    if any(side < crop for side, crop in zip(depth.shape, config.crop_size_px, strict=True)):
        raise ValueError(f"{image_path}: size: found {depth.shape[0]}x{depth.shape[1]}, expected at least "
                         f"--crop-size-px {config.crop_size_px[0]} {config.crop_size_px[1]}; lower it")  # fmt: skip
    return 0


def _check_same_size(image_path: Path, image: tuple[int, ...], label_path: Path, label: tuple[int, ...]) -> None:
    if image[:2] != label[:2]:
        raise ValueError(f"{label_path}: size: found {label[0]}x{label[1]}, expected {image[0]}x{image[1]} like "
                         f"{image_path.name}")  # fmt: skip
