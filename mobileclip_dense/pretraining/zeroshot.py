"""Zero-shot classification: an image is assigned to the class with the most similar prompts (arXiv 2103.00020, 3.1).

Images are in ImageNet's layout, FOLDER/CLASS/*.jpg. The classifier is open_clip's, so that figures are comparable.
"""

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from open_clip import SIMPLE_IMAGENET_TEMPLATES, build_zero_shot_classifier
from open_clip.model import CLIP, CustomTextCLIP

from mobileclip_dense.artifact.images import load_image
from mobileclip_dense.artifact.preprocess import Normalization
from mobileclip_dense.artifact.text import read_lines
from mobileclip_dense.models.clip import Tokenizer, build_transform
from mobileclip_dense.pretraining.zeroshot_images import describe_bad, list_classes, list_images

Template = Callable[[str], str]  # class name -> sentence
_WORDNET_ID = re.compile(r"n\d{8}\b")  # the names of ImageNet's folders


@torch.inference_mode()
def measure_zeroshot(
    model: CLIP | CustomTextCLIP, tokenizer: Tokenizer, normalization: Normalization, folder: Path, *,
    class_names: Sequence[str], templates: Sequence[Template], image_size_px: int, device: torch.device,
    batch_size: int = 256,
) -> dict[str, float]:  # fmt: skip
    """Top-1 and top-5 accuracy on all images of `folder`, in percent.

    Images that cannot be decoded are left out and counted in `num_skipped_images`; they must not end a long run.

    Args:
        model: a model of `build_clip`. Images are resized as the model specifies. Its mode (training, evaluation) is
            unchanged.
        class_names: names of the sorted sub-folders, see `read_class_names`.
        templates: prompt templates, see `read_templates`. The classifier of a class is the mean of its prompt
            embeddings.
        image_size_px: height and width to which images are resized and cropped.

    Raises:
        FileNotFoundError: there are no images.
        ValueError: no image can be decoded, or the numbers of classes and names differ.
    """
    images = list_images(folder)
    if (num_classes := len(list_classes(folder))) != len(class_names):
        raise ValueError(f"{folder}: zero-shot images: found {num_classes} classes, expected {len(class_names)}, one "
                         f"for each name; the folder has changed since the start")  # fmt: skip
    transform = build_transform(model, normalization, image_size_px)
    training = model.training
    model.eval()
    classifier = build_zero_shot_classifier(
        model, tokenizer, class_names, templates, device=device
    ).float()  # D,classes
    num_right, faults = {1: 0, 5: 0}, list[str]()

    def prepare(path: Path) -> torch.Tensor | None:
        try:
            return transform(load_image(path))
        except (ValueError, OSError) as error:
            faults.append(str(error))
            return None

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(images), batch_size):
            paths, classes = zip(*images[start : start + batch_size], strict=True)
            prepared = list(zip(pool.map(prepare, paths), classes, strict=True))
            pixels = [image for image, _ in prepared if image is not None]
            labels = [label for image, label in prepared if image is not None]
            if not pixels:
                continue
            scores = model.encode_image(torch.stack(pixels).to(device), normalize=True).float() @ classifier
            ranked = scores.topk(min(5, len(class_names)), dim=1).indices
            right = ranked == torch.tensor(labels, device=device)[:, None]
            num_right = {k: count + int(right[:, :k].any(dim=1).sum()) for k, count in num_right.items()}
    model.train(training)
    num_images = len(images) - len(faults)
    if not num_images:
        raise ValueError(describe_bad(folder, faults, len(images)))
    shares = {f"zeroshot_top{k}": 100 * count / num_images for k, count in num_right.items()}
    return {"num_images": num_images, "num_skipped_images": len(faults), "num_classes": len(class_names), **shares}


def read_class_names(folder: Path, file: Path | None = None) -> list[str]:
    """The class names of a folder, in the order of its sorted sub-folders.

    Args:
        folder: FOLDER/CLASS/*.jpg.
        file: UTF-8 lines `SUBFOLDER,NAME`, `SUBFOLDER<tab>NAME` or, if the sub-folders are WordNet ids,
            `n01440764 NAME`; or one name per line in the order of the sorted sub-folders. None: the names of the
            sub-folders, with underscores replaced by spaces and without a leading WordNet id.

    Raises:
        FileNotFoundError: the folder, the file or the sub-folders do not exist.
        ValueError: a sub-folder has no name or two names, the number of names is wrong, or a name is a WordNet id.
    """
    classes = list_classes(folder)
    if file is None:
        return _names_of_folders(folder, classes)
    lines = _read_list(file, "class names")
    named: dict[str, list[str]] = {}
    for key, name in filter(None, (_split_line(line, set(classes)) for line in lines)):
        named.setdefault(key, []).append(name)
    for key in set(classes) & named.keys():
        if len(named[key]) > 1 or not named[key][0]:
            raise ValueError(f"{file}: class names: found {' and '.join(map(repr, named[key]))} for {key}, "
                             f"expected one name")  # fmt: skip
    if set(classes) <= named.keys():
        return [named[name][0] for name in classes]
    if set(classes) & named.keys():
        missing = [name for name in classes if name not in named]
        raise ValueError(f"{file}: class names: found none for {', '.join(missing[:3])}; expected a line FOLDER,NAME "
                         f"for each of the {len(classes)} folders in {folder}")  # fmt: skip
    if with_id := next((line for line in lines if _WORDNET_ID.match(line)), None):
        raise ValueError(f"{file}: class names: found {with_id!r}, but no such folder in {folder} "
                         f"({', '.join(classes[:3])}, …); expected a line FOLDER,NAME for each folder")  # fmt: skip
    if len(lines) != len(classes):
        raise ValueError(f"{file}: class names: found {len(lines)} lines, expected {len(classes)}, one for each folder "
                         f"in {folder} ({', '.join(classes[:3])}, …)")  # fmt: skip
    return lines


def _names_of_folders(folder: Path, classes: list[str]) -> list[str]:
    names = [_WORDNET_ID.sub("", name.replace("_", " ")).lstrip(" -.") for name in classes]
    if unnamed := [name for name, words in zip(classes, names, strict=True) if not words]:
        raise ValueError(f"{folder}: zero-shot images: found the folder {unnamed[0]}, a WordNet id, expected a class "
                         f"name; pass --class-names with a line FOLDER,NAME for each folder")  # fmt: skip
    return names


def _split_line(line: str, classes: set[str]) -> tuple[str, str] | None:
    """The sub-folder and the name of a line, None if the line does not begin with a sub-folder."""
    for separator in "\t, ":
        if separator not in line:
            continue
        key, name = map(_unquoted, line.split(separator, 1))
        # Separated by a space, the first word of a name may also be a folder by chance, unless it is a WordNet id.
        if key in classes and (separator != " " or _WORDNET_ID.fullmatch(key)):
            return key, name
    return None


def _unquoted(cell: str) -> str:
    cell = cell.strip()
    return cell[1:-1].replace('""', '"') if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell


def read_templates(file: Path | None = None) -> list[Template]:
    """The prompt templates in a file, lines with `{}` for the class name.

    Args:
        file: None: open_clip's seven SIMPLE_IMAGENET_TEMPLATES.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is empty, or a line has no `{}`.
    """
    if file is None:
        return list(SIMPLE_IMAGENET_TEMPLATES)
    lines = _read_list(file, "templates")
    for line in lines:
        if "{}" not in line:
            raise ValueError(f"{file}: templates: found {line!r}, expected {{}} in place of the class name")
    return [lambda name, line=line: line.replace("{}", name) for line in lines]  # type: ignore[misc]


def _read_list(file: Path, what: str) -> list[str]:
    lines = [line.strip() for line in read_lines(file, what) if line.strip()]
    if not lines:
        raise ValueError(f"{file}: {what}: the file is empty")
    return lines
