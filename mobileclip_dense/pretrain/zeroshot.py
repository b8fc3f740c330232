"""Zero-shot classification: the class whose name, in a sentence, is nearest to the image (arXiv 2103.00020, 3.1).

The images lie as ImageNet's do, FOLDER/CLASS/*.jpg. Embedding the names is open_clip's, so figures compare with its.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from open_clip import SIMPLE_IMAGENET_TEMPLATES, build_zero_shot_classifier
from open_clip.model import CLIP, CustomTextCLIP
from PIL import Image
from torchvision.datasets import ImageFolder

from mobileclip_dense.contract.images import IMAGE_SUFFIXES, load_image
from mobileclip_dense.contract.preprocess import Normalization
from mobileclip_dense.models.clip import Tokenizer, build_transform

Template = Callable[[str], str]  # class name -> sentence


@torch.inference_mode()
def measure_zeroshot(
    model: CLIP | CustomTextCLIP, tokenizer: Tokenizer, normalization: Normalization, folder: Path, *,
    class_names: Sequence[str], templates: Sequence[Template], image_size_px: int, device: torch.device,
    batch_size: int = 256,
) -> dict[str, float]:  # fmt: skip
    """Top-1 and top-5 accuracy on all images of `folder`, in percent.

    Args:
        model: what `build_clip` gave; its record of how images are resized is followed; left in its mode.
        class_names: of the sorted sub-folders, see `read_class_names`.
        templates: the classifier of a class is the mean of its sentences' embeddings, see `read_templates`.
        image_size_px: height and width the images are resized and cropped to.

    Raises:
        FileNotFoundError: no images. ValueError: an image cannot be decoded.
    """
    images = _list_images(folder)
    transform = build_transform(model, normalization, image_size_px)
    training = model.training
    model.eval()
    classifier = build_zero_shot_classifier(
        model, tokenizer, class_names, templates, device=device
    ).float()  # D,classes
    num_right = {1: 0, 5: 0}
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(images), batch_size):
            paths, labels = zip(*images[start : start + batch_size], strict=True)
            batch = torch.stack(list(pool.map(lambda path: transform(_open_image(path)), paths))).to(device)
            scores = model.encode_image(batch, normalize=True).float() @ classifier
            ranked = scores.topk(min(5, len(class_names)), dim=1).indices
            right = ranked == torch.tensor(labels, device=device)[:, None]
            num_right = {k: count + int(right[:, :k].any(dim=1).sum()) for k, count in num_right.items()}
    model.train(training)
    shares = {f"zeroshot_top{k}": 100 * count / len(images) for k, count in num_right.items()}
    return {"num_images": len(images), "num_classes": len(class_names), **shares}


def read_class_names(folder: Path, file: Path | None = None) -> list[str]:
    """The names of a folder's classes, in the order of its sorted sub-folders.

    Args:
        folder: FOLDER/CLASS/*.jpg.
        file: UTF-8 lines `SUBFOLDER,NAME`, or one name per line in the order of the sorted sub-folders; None: the names
            of the sub-folders, underscores as spaces.

    Raises:
        FileNotFoundError: no such folder, file or sub-folders. ValueError: a sub-folder has no name, or the number of
            names is not that of the sub-folders.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: zero-shot images: no such folder; expected FOLDER/CLASS/*.jpg")
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if not classes:
        raise FileNotFoundError(f"{folder}: zero-shot images: found no sub-folders, expected one for each class")
    if file is None:
        return [name.replace("_", " ") for name in classes]
    lines = _read_lines(file, "class names")
    named = dict(line.split(",", 1) for line in lines if "," in line)
    if set(classes) <= named.keys():
        return [named[name].strip() for name in classes]
    if set(classes) & named.keys():
        missing = [name for name in classes if name not in named]
        raise ValueError(f"{file}: class names: found none for {', '.join(missing[:3])}; expected a line FOLDER,NAME "
                         f"for each of the {len(classes)} folders in {folder}")  # fmt: skip
    if len(lines) != len(classes):
        raise ValueError(f"{file}: class names: found {len(lines)} lines, expected {len(classes)}, one for each folder "
                         f"in {folder} ({', '.join(classes[:3])}, …)")  # fmt: skip
    return lines


def read_templates(file: Path | None = None) -> list[Template]:
    """Sentences to put a class name into: lines with `{}`; None: open_clip's SIMPLE_IMAGENET_TEMPLATES (seven).

    Raises:
        FileNotFoundError: no such file. ValueError: no lines, or a line without `{}`.
    """
    if file is None:
        return list(SIMPLE_IMAGENET_TEMPLATES)
    lines = _read_lines(file, "templates")
    for line in lines:
        if "{}" not in line:
            raise ValueError(f"{file}: templates: found {line!r}, expected {{}} where the class name goes")
    return [lambda name, line=line: line.replace("{}", name) for line in lines]  # type: ignore[misc]


def _read_lines(file: Path, what: str) -> list[str]:
    if not file.is_file():
        raise FileNotFoundError(f"{file}: {what}: no such file")
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise ValueError(f"{file}: {what}: not UTF-8 text") from None
    if not lines:
        raise ValueError(f"{file}: {what}: the file is empty")
    return lines


def _list_images(folder: Path) -> list[tuple[str, int]]:
    """Paths and class indices, sorted."""
    images: list[tuple[str, int]] = ImageFolder(
        str(folder), is_valid_file=lambda path: Path(path).suffix.lower() in IMAGE_SUFFIXES, allow_empty=True
    ).samples
    if not images:
        raise FileNotFoundError(f"{folder}: zero-shot images: found none, expected FOLDER/CLASS/*.jpg")
    return images


def _open_image(path: str) -> Any:
    return Image.fromarray(load_image(Path(path)))
