from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mobileclip_dense.artifact.preprocess import Normalization
from mobileclip_dense.models.clip import build_transform
from mobileclip_dense.pretraining.zeroshot import measure_zeroshot, read_class_names, read_templates
from mobileclip_dense.pretraining.zeroshot_images import verify_images

CPU = torch.device("cpu")
COLOURS = {"red": (200, 30, 20), "green": (30, 190, 40), "blue": (10, 30, 220)}


def write_colours(folder: Path, shown: dict[str, list[str]]) -> Path:
    """Write FOLDER/CLASS/*.jpg, one plain picture for each colour of a class."""
    for name, colours in shown.items():
        (folder / name).mkdir(parents=True)
        for index, colour in enumerate(colours):
            Image.new("RGB", (40, 32), COLOURS[colour]).save(folder / name / f"{index}.jpg")
    return folder


class ColourModel(torch.nn.Module):
    """Embeds an image as its mean colour and a caption as the colour it names, so that answers are known."""

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


def test_a_line_of_pixels_is_cut_before_it_is_resized(monkeypatch: pytest.MonkeyPatch) -> None:
    """65000x1 pixels would become 32 x 2 million."""
    resize, widths = Image.Image.resize, []

    def recorded(image: Image.Image, size: tuple[int, int], *arguments: object) -> Image.Image:
        widths.append(size[0])
        return resize(image, size, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Image.Image, "resize", recorded)
    transform = build_transform(ColourModel(), Normalization(mean=(0, 0, 0), std=(1, 1, 1)), 32)  # type: ignore[arg-type]
    line = np.zeros((1, 65000, 3), np.uint8)
    line[:, 32000:33000] = 255
    found = transform(line)
    assert widths == [16 * 32]
    assert found.shape == (3, 32, 32)
    assert found.min() == 1


class RandomModel(ColourModel):
    """Random linear maps of pixels and of letter counts, so that answers differ between images."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.pixels = torch.randn(3 * 32 * 32, 16, generator=generator)
        self.letters = torch.randn(128, 16, generator=generator)

    def encode_image(self, images: torch.Tensor, normalize: bool) -> torch.Tensor:
        return torch.nn.functional.normalize(images.flatten(1) @ self.pixels, dim=1)

    def encode_text(self, texts: torch.Tensor, normalize: bool) -> torch.Tensor:
        return torch.nn.functional.normalize(self.letters[texts].sum(dim=1), dim=1)


def letter_tokenizer(captions: list[str]) -> torch.Tensor:
    return torch.tensor([list(caption.ljust(40).encode()) for caption in captions])


def test_predictions_are_those_of_the_definition(tmp_path: Path) -> None:
    """The class with the largest cosine to the normalized mean of unit text embeddings over the templates."""
    names = sorted(["cone", "cube", "dome", "sphere", "torus", "wedge", "prism"])
    templates = ["a photo of a {}", "the {} stands on grass"]
    images = np.random.default_rng(0).integers(0, 256, (len(names), 6, 32, 32, 3), dtype=np.uint8)
    for name, pictures in zip(names, images, strict=True):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index, picture in enumerate(pictures):
            Image.fromarray(picture).save(tmp_path / "images" / name / f"{index}.png")
    (tmp_path / "templates.txt").write_text("\n".join(templates))
    model, normalization = RandomModel(), Normalization(mean=(0.5, 0.4, 0.3), std=(0.2, 0.5, 0.25))
    metrics = measure_zeroshot(
        model.train(), letter_tokenizer, normalization, tmp_path / "images",  # type: ignore[arg-type]
        class_names=names, templates=read_templates(tmp_path / "templates.txt"), image_size_px=32, device=CPU,
        batch_size=4,
    )  # fmt: skip
    assert model.training
    letters, pixels = model.letters.double().numpy(), model.pixels.double().numpy()
    prototypes = []
    for name in names:
        texts = np.stack([sum(letters[byte] for byte in t.format(name).ljust(40).encode()) for t in templates])
        mean = (texts / np.linalg.norm(texts, axis=1, keepdims=True)).mean(axis=0)
        prototypes.append(mean / np.linalg.norm(mean))
    inputs = (images / 255 - normalization.mean) / normalization.std
    scores = inputs.transpose(0, 1, 4, 2, 3).reshape(len(names), 6, -1) @ pixels @ np.stack(prototypes).T
    own = np.stack([scores[label, :, label] for label in range(len(names))])
    rank = (scores > own[..., None]).sum(axis=2)
    assert metrics["zeroshot_top1"] == pytest.approx(100 * (rank < 1).mean())
    assert metrics["zeroshot_top5"] == pytest.approx(100 * (rank < 5).mean())
    assert len(np.unique(scores.argmax(axis=2))) > 4  # not a trivial case


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
    with pytest.raises(ValueError, match=r"expected \{\} in place of the class name"):
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
    with pytest.raises(ValueError, match=r"1 of 1 cannot be used:\n.*red/0\.jpg: image: not an image"):
        measure_zeroshot(model, colour_tokenizer, normalization, folder, **arguments)  # type: ignore[arg-type]


def test_images_that_cannot_be_decoded_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_colours(tmp_path / "images", {"blue": ["blue"] * 3, "green": ["green"] * 3, "red": ["red", "blue"]})
    (folder / "green" / "0.jpg").write_bytes(b"no picture")
    arguments = dict(class_names=["blue", "green", "red"], templates=read_templates(), image_size_px=32, device=CPU)
    model, normalization = ColourModel(), Normalization(mean=(0, 0, 0), std=(1, 1, 1))
    for batch_size in (1, 3, 100):
        figures = measure_zeroshot(model, colour_tokenizer, normalization, folder, batch_size=batch_size, **arguments)  # type: ignore[arg-type]
        assert (figures["num_images"], figures["num_skipped_images"]) == (7, 1)
        assert figures["zeroshot_top1"] == pytest.approx(600 / 7)
    verify_images(folder, max_bad_share=0.01)  # of few images, one may be bad
    assert "1 of 8 cannot be used" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"green/0\.jpg: image: .*\nExpected at most 0\.0% \(--max-bad-share\)"):
        verify_images(folder, max_bad_share=0)
    (folder / "red" / "1.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="2 of 8 cannot be used"):
        verify_images(folder, max_bad_share=0.01)
    with pytest.raises(ValueError, match="found 3 classes, expected 2, one for each name; the folder has changed"):
        measure_zeroshot(model, colour_tokenizer, normalization, folder, **arguments | {"class_names": ["a", "b"]})  # type: ignore[arg-type]


def test_hidden_folders_and_files_are_neither_classes_nor_images(tmp_path: Path) -> None:
    folder = write_colours(tmp_path / "images", {"red": ["red"], "blue": ["blue"]})
    for name in (".ipynb_checkpoints", "__MACOSX", "red/.ipynb_checkpoints", "._red"):
        write_colours(folder, {name: ["green"]})
    for name in (".DS_Store", "red/._0.jpg", "red/.DS_Store"):
        (folder / name).write_bytes(b"Mac OS X")
    assert read_class_names(folder) == ["blue", "red"]
    verify_images(folder, max_bad_share=0)
    figures = measure_zeroshot(
        ColourModel(), colour_tokenizer, Normalization(mean=(0, 0, 0), std=(1, 1, 1)), folder,  # type: ignore[arg-type]
        class_names=read_class_names(folder), templates=read_templates(), image_size_px=32, device=CPU,
    )  # fmt: skip
    assert (figures["num_images"], figures["zeroshot_top1"]) == (2, 100)


@pytest.mark.parametrize("line", ["{id} {name}", "{id},{name}", "{id}\t{name}", '{id}, "{name}"', '"{id}","{name}"'])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_wordnet_ids_name_folders_and_stay_out_of_the_prompts(tmp_path: Path, line: str, mark: str) -> None:
    folder = write_colours(tmp_path / "images", {"n01440764": ["red"], "n01443537": ["blue"]})
    names = {"n01440764": "tench, Tinca tinca", "n01443537": "goldfish", "n01484850": "great white shark"}
    lines = [line.format(id=key, name=name) for key, name in reversed(names.items())]
    (tmp_path / "names.txt").write_text(mark + "\n".join(lines), encoding="utf-8")
    assert read_class_names(folder, tmp_path / "names.txt") == ["tench, Tinca tinca", "goldfish"]


def test_wordnet_ids_without_a_name_or_a_folder_are_refused(tmp_path: Path) -> None:
    folder = write_colours(tmp_path / "images", {"n01440764": ["red"], "n01443537": ["blue"]})
    with pytest.raises(ValueError, match=r"folder n01440764, a WordNet id.*pass --class-names"):
        read_class_names(folder)
    named = write_colours(tmp_path / "named", {"n02085620-Chihuahua": ["red"], "n02085782_Japanese_spaniel": ["blue"]})
    assert read_class_names(named) == ["Chihuahua", "Japanese spaniel"]
    plain, file = write_colours(tmp_path / "plain", {"cat": ["red"], "dog": ["blue"]}), tmp_path / "names.txt"
    file.write_text("n01440764 tench\nn01443537 goldfish\n")
    with pytest.raises(ValueError, match="found 'n01440764 tench', but no such folder in"):
        read_class_names(plain, file)
    file.write_text("cat of the house\ndog of the yard\n")  # a list of names, whose first words are folders by chance
    assert read_class_names(plain, file) == ["cat of the house", "dog of the yard"]
    for text, found in (
        ("cat,tabby\ncat,tom\ndog,pug\n", "'tabby' and 'tom' for cat"),
        ("cat,\ndog,pug", "'' for cat"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=f"found {found}, expected one name"):
            read_class_names(plain, file)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_lists_are_cut_at_line_feeds_alone(tmp_path: Path, mark: str) -> None:
    (tmp_path / "list.txt").write_text(f"{mark}a {{}},\u2028seen\r\nthe\x85{{}}\n", encoding="utf-8", newline="")
    assert [template("cat") for template in read_templates(tmp_path / "list.txt")] == ["a cat,\u2028seen", "the\x85cat"]
    (tmp_path / "list.txt").write_text(f"{mark}sea\u2028lion\x0c cub\ncat\n", encoding="utf-8")
    folder = write_colours(tmp_path / "images", {"one": [], "two": []})
    assert read_class_names(folder, tmp_path / "list.txt") == ["sea\u2028lion\x0c cub", "cat"]
    (tmp_path / "list.txt").write_text("cat\ndog\n", encoding="utf-16")
    with pytest.raises(ValueError, match=r"list\.txt: class names: found UTF-16"):
        read_class_names(folder, tmp_path / "list.txt")
