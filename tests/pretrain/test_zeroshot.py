from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mobileclip_dense.contract.preprocess import Normalization
from mobileclip_dense.models.clip import build_clip, preprocessing_of
from mobileclip_dense.pretrain.zeroshot import measure_zeroshot, read_class_names, read_templates

CPU = torch.device("cpu")
COLOURS = {"red": (200, 30, 20), "green": (30, 190, 40), "blue": (10, 30, 220)}


def write_colours(folder: Path, shown: dict[str, list[str]]) -> Path:
    """FOLDER/CLASS/*.jpg, one plain picture for each colour that a class shows."""
    for name, colours in shown.items():
        (folder / name).mkdir(parents=True)
        for index, colour in enumerate(colours):
            Image.new("RGB", (40, 32), COLOURS[colour]).save(folder / name / f"{index}.jpg")
    return folder


class ColourModel(torch.nn.Module):
    """Embeds an image as its mean colour and a caption as the colour it names: what it answers can be told by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = torch.nn.Identity()
        self.visual.preprocess_cfg = {"interpolation": "bilinear", "resize_mode": "shortest"}  # type: ignore[assignment]

    def encode_image(self, images: torch.Tensor, normalize: bool) -> torch.Tensor:
        return torch.nn.functional.normalize(images.mean(dim=(2, 3)), dim=1)

    def encode_text(self, texts: torch.Tensor, normalize: bool) -> torch.Tensor:
        return torch.eye(3)[texts]


def colour_tokenizer(captions: list[str]) -> torch.Tensor:
    return torch.tensor([next(i for i, colour in enumerate(COLOURS) if colour in caption) for caption in captions])


@pytest.mark.parametrize("batch_size", [2, 100])
def test_accuracy_on_a_case_worked_out_by_hand(tmp_path: Path, batch_size: int) -> None:
    # Classes in order: blue, green, red. Of six pictures, five show their class.
    folder = write_colours(tmp_path, {"red": ["red", "red", "blue"], "blue": ["blue"], "green": ["green", "green"]})
    metrics = measure_zeroshot(
        ColourModel(), colour_tokenizer, Normalization(mean=(0, 0, 0), std=(1, 1, 1)), folder,  # type: ignore[arg-type]
        class_names=read_class_names(folder), templates=read_templates(), image_size_px=32, device=CPU,
        batch_size=batch_size,
    )  # fmt: skip
    assert metrics["zeroshot_top1"] == pytest.approx(500 / 6)
    assert metrics["zeroshot_top5"] == 100
    assert (metrics["num_images"], metrics["num_classes"]) == (6, 3)


@torch.no_grad()
def test_predictions_are_those_of_the_definition(tmp_path: Path) -> None:
    """Mean over templates of unit text embeddings, made a unit vector; the class of the largest cosine."""
    torch.manual_seed(0)
    names = ["cone", "cube", "dome", "sphere", "torus", "wedge", "prism"]
    templates = ["a photo of a {}", "the {} stands on grass"]
    rng = np.random.default_rng(0)
    for name in names:
        (tmp_path / name).mkdir()
        for index in range(3):
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    model, tokenizer, _ = build_clip("nano", 32)
    normalization = preprocessing_of("MobileCLIP2-S3").normalization
    (tmp_path.parent / "templates.txt").write_text("\n".join(templates))
    metrics = measure_zeroshot(
        model.train(), tokenizer, normalization, tmp_path, class_names=read_class_names(tmp_path),
        templates=read_templates(tmp_path.parent / "templates.txt"), image_size_px=32, device=CPU, batch_size=4,
    )  # fmt: skip
    assert model.training
    model.eval()
    top1 = top5 = 0
    for label, name in enumerate(sorted(names)):
        for index in range(3):
            pixels = np.asarray(Image.open(tmp_path / name / f"{index}.png")) / 255
            image = (pixels - normalization.mean) / normalization.std
            feature = model.encode_image(torch.tensor(image.transpose(2, 0, 1)[None], dtype=torch.float32))[0].double()
            scores = []
            for other in sorted(names):
                texts = model.encode_text(tokenizer([t.format(other) for t in templates])).double()
                prototype = (texts / texts.norm(dim=1, keepdim=True)).mean(dim=0)
                scores.append(float(feature @ prototype / prototype.norm()))
            rank = sum(score > scores[label] for score in scores)
            top1, top5 = top1 + (rank == 0), top5 + (rank < 5)
    assert 0 < top1 < 21 and top5 < 21  # a case that tells
    assert metrics["zeroshot_top1"] == pytest.approx(100 * top1 / 21)
    assert metrics["zeroshot_top5"] == pytest.approx(100 * top5 / 21)


def test_class_names_come_from_a_file_or_from_the_folders(tmp_path: Path) -> None:
    folder = write_colours(tmp_path / "images", {"n02": [], "n01_fish": ["red"]})
    file = tmp_path / "names.txt"
    assert read_class_names(folder) == ["n01 fish", "n02"]
    file.write_text("n02,hen\nn01_fish,goldfish, Carassius auratus\nn03,not here\n")
    assert read_class_names(folder, file) == ["goldfish, Carassius auratus", "hen"]
    file.write_text("goldfish\n\nhen\n")
    assert read_class_names(folder, file) == ["goldfish", "hen"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("goldfish\n", r"found 1 lines, expected 2, one for each folder"),
        ("n01,goldfish\nn03,cock\n", r"class names: found none for n02; expected a line FOLDER,NAME"),
        ("", r"class names: the file is empty"),
    ],
)
def test_class_names_that_do_not_fit_are_refused(tmp_path: Path, text: str, message: str) -> None:
    folder = write_colours(tmp_path / "images", {"n01": ["red"], "n02": ["red"]})
    (tmp_path / "names.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_class_names(folder, tmp_path / "names.txt")


def test_templates_are_sentences_with_a_place_for_the_name(tmp_path: Path) -> None:
    file = tmp_path / "templates.txt"
    file.write_text("a photo of a {}.\n{weird} {}\n")
    assert [template("cone") for template in read_templates(file)] == ["a photo of a cone.", "{weird} cone"]
    file.write_text("a photo of a cone\n")
    with pytest.raises(ValueError, match=r"expected \{\} where the class name goes"):
        read_templates(file)
    assert len(read_templates()) == 7


def test_missing_and_damaged_images_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder; expected FOLDER/CLASS"):
        read_class_names(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="found no sub-folders"):
        read_class_names(tmp_path / "empty")
    folder = write_colours(tmp_path / "images", {"blue": [], "red": []})
    arguments = dict(class_names=["blue", "red"], templates=read_templates(), image_size_px=32, device=CPU)
    model, normalization = ColourModel(), Normalization(mean=(0, 0, 0), std=(1, 1, 1))
    with pytest.raises(FileNotFoundError, match="found none, expected FOLDER/CLASS"):
        measure_zeroshot(model, colour_tokenizer, normalization, folder, **arguments)  # type: ignore[arg-type]
    (folder / "red" / "0.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"red/0\.jpg: image: cannot be decoded"):
        measure_zeroshot(model, colour_tokenizer, normalization, folder, **arguments)  # type: ignore[arg-type]
