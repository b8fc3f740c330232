"""The images for zero-shot classification, in ImageNet's layout: FOLDER/CLASS/*.jpg."""

import math
import os
import sys
from pathlib import Path

from mobileclip_dense.artifact.hidden import is_hidden
from mobileclip_dense.artifact.images import IMAGE_SUFFIXES, load_image
from mobileclip_dense.data.scan_cache import scan_with_cache, stamp_of

_NUM_SHOWN = 5


def list_classes(folder: Path) -> list[str]:
    """The sorted names of the sub-folders, without hidden ones.

    Raises:
        FileNotFoundError: the folder does not exist or has no sub-folders.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: zero-shot images: no such folder; expected FOLDER/CLASS/*.jpg")
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))
    if not classes:
        raise FileNotFoundError(f"{folder}: zero-shot images: found no sub-folders, expected one for each class")
    return classes


def list_images(folder: Path) -> list[tuple[Path, int]]:
    """The sorted images under each sub-folder with the index of their class, without hidden ones.

    Raises:
        FileNotFoundError: see `list_classes`; or there are no images.
    """
    images = [(path, label) for label, name in enumerate(list_classes(folder)) for path in _images_of(folder / name)]
    if not images:
        raise FileNotFoundError(f"{folder}: zero-shot images: found none, expected FOLDER/CLASS/*.jpg")
    return images


def _images_of(folder: Path) -> list[Path]:
    files = [Path(parent) / name for parent, _, names in os.walk(folder, followlinks=True) for name in names]
    return sorted(
        path for path in files if path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(str(path.relative_to(folder)))
    )


def verify_images(folder: Path, max_bad_share: float) -> None:
    """Decode every image of a folder, except those that a previous start has verified.

    It prints to stderr which images cannot be decoded and will be left out.

    Args:
        max_bad_share: largest share of unusable images, 0..1. The allowed number is rounded up.

    Raises:
        FileNotFoundError: there are no images.
        ValueError: a larger share of the images, or all images, cannot be decoded.
    """
    paths = [path for path, _ in list_images(folder)]
    found = scan_with_cache(
        paths, _fault_of, stamps=[stamp_of(path) for path in paths],
        from_json=lambda answer: answer if isinstance(answer, str) else None, is_good=lambda fault: not fault,
        cache_key=f"zero-shot {folder.resolve()}", progress="check zero-shot images",
    )  # fmt: skip
    faults = [fault for fault in found if fault]
    message = describe_bad(folder, faults, len(paths))
    if len(faults) > math.ceil(max_bad_share * len(paths)) or len(faults) == len(paths):
        raise ValueError(f"{message}\nExpected at most {max_bad_share:.1%} (--max-bad-share); repair or remove them.")
    if faults:
        print(f"{message}\nThey will be left out.", file=sys.stderr)


def _fault_of(path: Path) -> str:
    try:
        load_image(path)
    except (ValueError, OSError) as error:
        return str(error)
    return ""


def describe_bad(folder: Path, faults: list[str], num_images: int) -> str:
    """A message with the number of unusable images and the first five of them."""
    lines = [f"{folder}: zero-shot images: {len(faults)} of {num_images} cannot be used:", *faults[:_NUM_SHOWN]]
    return "\n  ".join(lines + ([f"... and {len(faults) - _NUM_SHOWN} more"] if len(faults) > _NUM_SHOWN else []))
