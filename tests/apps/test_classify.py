"""Zero-shot classification: tokens and probabilities against open_clip's, the cache, towers that do not fit."""

import dataclasses
import json
import random
import shutil
import sys
import tempfile
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

import mobileclip_dense.runtime.prompts
from mobileclip_dense.apps.classify import ClassifyConfig, classify
from mobileclip_dense.artifact import preprocess
from mobileclip_dense.artifact.artifact import load_artifact, save_artifact
from mobileclip_dense.artifact.images import load_image
from mobileclip_dense.artifact.preprocess import crop_image, resize_image
from mobileclip_dense.config.export import ToOnnxConfig
from mobileclip_dense.deploy.onnx.exporter import to_onnx
from mobileclip_dense.deploy.tokenizer import save_tokenizer
from mobileclip_dense.models.clip import build_clip
from mobileclip_dense.run.folder import load_run
from mobileclip_dense.runtime.predictions import zero_shot
from mobileclip_dense.runtime.prompts import ClipTokenizer, embed_prompts, read_prompts
from tests.conftest import Line

Towers = tuple[Path, Path]
ODD = (
    "A photo of a DOG.",
    "it's we're I'LL can't they'Ve don'T '\u017f",
    "  two\t spaces\n and \u2028 \u00a0\u3000 others \x1c ",
    "naïve café cafe\u0301 ﬁ ﬄ ½ ² Ⅷ №",
    "ΟΔΥΣΣΕΥΣ İstanbul ǅ ẞ",
    "犬の写真 사진 صورة كلب תמונה תַּ कुत्ता 🐕",
    "👩‍👩‍👧‍👦 ☕️ 🇨🇭 #️⃣ emoji!!!",
    "&lt;b&gt; &amp;amp; &eacute; &#128054; <e&#769;> &nope;",
    "schÃ¶n â€œquotedâ€\x9d donâ€™t",
    "12345 3.14159 1,000 a1b2c3",
    "<start_of_text>",
    "a <end_of_text> b",
    "<\u017ftart_of_text>",
    "snake_case kebab-case CamelCase path/to/file.jpg IMG_1234.JPG",
    "",
    " ",
    "\u200b\ufeff\u00ad",
    "word " * 100,
    "x" * 2000,
    "!?…—\u2013\u2018\u2019“”«»" * 20,
    "\ud7ff\ue000\ufffd\U0010ffff",
)


@pytest.fixture(scope="module")
def towers(line: Line, tmp_path_factory: pytest.TempPathFactory) -> Towers:
    image, text = to_onnx(ToOnnxConfig(run=line.clip, out=tmp_path_factory.mktemp("towers")))
    return image, text


def strings(num: int) -> list[str]:
    """Seeded strings of letters, signs, spaces and anything at all."""
    rng = random.Random(0)
    assigned = [c for c in range(sys.maxunicode) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]
    assigned.remove(0x345)  # the one character of which the two libraries think differently
    pools = (range(0x20, 0x7F), range(0x20, 0x250), assigned)
    return ["".join(chr(rng.choice(rng.choice(pools))) for _ in range(rng.randrange(80))) for _ in range(num)]


@pytest.mark.parametrize("encoder", ["nano", "mci2"])
def test_the_tokens_are_open_clips_for_hundreds_of_odd_texts(encoder: str, tmp_path: Path) -> None:
    reference = open_clip.get_tokenizer({"nano": "MobileCLIP-nano", "mci2": "MobileCLIP-S2"}[encoder])
    save_tokenizer(reference, tmp_path / "tokenizer.json")
    texts = [*ODD, *strings(500)]
    found, cut = ClipTokenizer(tmp_path / "tokenizer.json")(texts)
    for text, row, expected in zip(texts, found, reference(texts).numpy(), strict=True):
        assert row.tolist() == expected.tolist(), repr(text)
    assert found.dtype == np.int64
    length = {"nano": 48, "mci2": 77}[encoder]
    assert found.shape == (len(texts), length)
    assert (
        {"word " * 100, "x" * 2000} <= set(cut) == {text for text in texts if len(reference.encode(text)) > length - 2}
    )


def test_a_tokenizer_of_another_kind_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="than open_clip's tokenizer"):
        save_tokenizer(open_clip.SimpleTokenizer(clean="canonicalize"), tmp_path / "tokenizer.json")


def settings(towers: Towers, out: Path, *inputs: object, **changed: Any) -> ClassifyConfig:
    given = {"prompts": ("a red cube", "a blue ball", "nothing"), "cache": out / "cache", "threads": 1} | changed
    return ClassifyConfig(artifact=towers[0], inputs=tuple(map(str, inputs)), out=out, **given)


def test_the_probabilities_are_open_clips(line: Line, towers: Towers, tmp_path: Path) -> None:
    """With open_clip's model and tokenizer and torchvision's transforms, from the photograph's file on."""
    clip, tokenizer, _ = build_clip("nano", 32)
    clip.load_state_dict(load_run(line.clip).weights)
    clip.eval()
    Image.open(line.photo).resize((90, 70)).save(tmp_path / "wide.png")
    transform = v2.Compose([v2.Resize(32), v2.CenterCrop(32), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    templates, prompts = ("a photo of {}.", "{} &amp; nothing else"), ("a red cube", "A Blue ball")
    with torch.no_grad():
        image = clip.encode_image(transform(Image.open(tmp_path / "wide.png"))[None], normalize=True)
        rows = [tokenizer([template.replace("{}", prompt) for template in templates]) for prompt in prompts]
        texts = torch.stack([clip.encode_text(row, normalize=True).mean(dim=0) for row in rows])
        texts = texts / texts.norm(dim=1, keepdim=True)
        expected = (clip.logit_scale.exp() * image @ texts.T).softmax(dim=1)[0].tolist()
    record = classify(settings(towers, tmp_path / "out", tmp_path / "wide.png", prompts=prompts, templates=templates))
    found = record["inputs"][0]["probabilities"]
    assert found == pytest.approx(dict(zip(prompts, expected, strict=True)), abs=1e-5)
    assert abs(expected[0] - expected[1]) > 1e-4  # or nothing would have been shown


def test_the_scale_decides_how_sure_the_answer_is() -> None:
    """Cosines 0.6 and 0.8, hence logits 20 * (0.6, 0.8): e^-4 / (1 + e^-4) for the first."""
    texts = np.array([[1, 0], [0, 1]], np.float32)
    found = zero_shot(np.array([0.6, 0.8], np.float32), texts, ["a", "b"], 20.0)
    assert found.probabilities == pytest.approx({"a": np.exp(-4) / (1 + np.exp(-4)), "b": 1 / (1 + np.exp(-4))})
    assert found.best == "b"


def test_the_centre_of_a_photograph_is_cropped_as_torchvision_does_it() -> None:
    rng = np.random.default_rng(0)
    for height, width in ((90, 70), (64, 201), (35, 32), (32, 35), (32, 32), (20, 31), (480, 640)):
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        expected = v2.Compose([v2.Resize(32), v2.CenterCrop(32)])(Image.fromarray(image))
        np.testing.assert_array_equal(crop_image(image, 32, 32), np.asarray(expected))
    assert crop_image(image, 32, 64).shape == (32, 64, 3)
    assert crop_image(image, 64, 32).shape == (64, 32, 3)


def test_both_towers_carry_scale_and_tokenizer(line: Line, towers: Towers) -> None:
    scale = float(np.exp(load_run(line.clip).weights["logit_scale"].item()))
    for folder in towers:
        assert load_artifact(folder).logit_scale == pytest.approx(scale)
    assert "tokenizer.json" in load_artifact(towers[1]).files
    assert load_artifact(line.artifact("segment", "fp32.onnx")).logit_scale is None


def test_vectors_of_prompts_are_kept_and_a_damaged_or_other_cache_is_not_believed(
    towers: Towers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def embed(*prompts: str) -> np.ndarray:  # type: ignore[type-arg]
        return embed_prompts(towers[1], prompts, ("{}",), tmp_path, 1)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the model was loaded")

    first = embed("a cube", "a ball")
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, rtol=1e-5)
    with monkeypatch.context() as patched:
        patched.setattr(mobileclip_dense.runtime.prompts, "load_model", never)
        np.testing.assert_array_equal(embed("a cube", "a ball"), first)
        with pytest.raises(AssertionError):
            embed("a ball", "a cube")
    np.testing.assert_array_equal(embed("a ball", "a cube"), first[::-1])
    ensemble = embed_prompts(towers[1], ("a cube", "a ball"), ("{}", "by night, far away: {}"), tmp_path, 1)
    np.testing.assert_allclose(np.linalg.norm(ensemble, axis=1), 1, rtol=1e-6)
    for damaged in (b"", b"not an array", next(tmp_path.iterdir()).read_bytes()[:-1]):
        for path in tmp_path.iterdir():
            path.write_bytes(damaged)
        np.testing.assert_array_equal(embed("a cube", "a ball"), first)


def test_a_photograph_gives_a_picture_and_a_prompt_too_long_a_warning(
    line: Line, towers: Towers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "prompts.txt").write_text("\ufeffa red cube\n\n" + "very " * 60 + "long\n", encoding="utf-8")
    (tmp_path / "bad.jpg").write_text("no image")
    with pytest.raises(ValueError, match="1 of 2 inputs could not be used"):
        classify(settings(towers, tmp_path / "out", tmp_path / "bad.jpg", line.photo, prompts=(), top=1,
                          prompts_file=tmp_path / "prompts.txt"))  # fmt: skip
    said = capsys.readouterr()
    assert "longer than 48 tokens; its end is cut off" in said.err
    assert "a red cube" in said.out
    picture = load_image(tmp_path / "out" / "00000007-classify.png")
    np.testing.assert_array_equal(picture[:64, :64], load_image(line.photo))
    assert picture.shape[0] > 64  # the bars
    (found,) = json.loads((tmp_path / "out" / "classify-summary.json").read_text())["inputs"]
    assert len(found["probabilities"]) == 2
    assert sum(found["probabilities"].values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        (("one",), "found 1, expected at least two"),
        (("a", "b", " a"), "found 'a' twice"),
        (("a", " "), "found an empty one"),
    ],
)
def test_prompts_that_leave_no_choice_are_refused(prompts: tuple[str, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_prompts(prompts, None)


def test_a_file_of_prompts_must_be_text(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(ValueError, match=r"latin\.txt: --prompts-file: found byte 0xe9 at 3, expected UTF-8"):
        read_prompts((), tmp_path / "latin.txt")
    with pytest.raises(FileNotFoundError, match=r"gone\.txt: --prompts-file: no such file"):
        read_prompts((), tmp_path / "gone.txt")


def test_a_file_of_prompts_is_cut_at_line_feeds_alone(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_bytes("\ufeffa\u2028b\r\n\r\nc\x0cd\x85e\n".encode())
    assert read_prompts(("first",), tmp_path / "prompts.txt") == ["first", "a\u2028b", "c\x0cd\x85e"]


def test_prompts_and_templates_of_another_encoding_are_refused_by_flag(towers: Towers, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--prompts: found 'caf\\udce9', expected UTF-8 text"):
        read_prompts(("caf\udce9", "tea"), None)
    with pytest.raises(ValueError, match=r"--templates: found '\{\} caf\\udce9', expected UTF-8 text"):
        settings(towers, tmp_path, "x.jpg", templates=("{} caf\udce9",))


def test_a_cache_that_cannot_be_written_or_found_does_not_stop_anything(
    line: Line, towers: Towers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    (tmp_path / "file").write_text("no folder")
    kept = embed_prompts(towers[1], ("a", "b"), ("{}",), tmp_path / "cache", 1)
    for cache in (tmp_path / "file" / "below", Path("/proc/cache"), tmp_path / ("long" * 80)):
        np.testing.assert_array_equal(embed_prompts(towers[1], ("a", "b"), ("{}",), cache, 1), kept)
        assert "the next start computes them again" in capsys.readouterr().err
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/proc")
    classify(settings(towers, tmp_path / "out", line.photo, cache=None))
    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    classify(settings(towers, tmp_path / "homeless", line.photo, cache=None))
    assert len(list((tmp_path / "temporary").glob("mobileclip-dense/*.npy"))) == 1


def test_a_prompt_of_two_lines_is_one_prompt_and_a_damaged_tower_beside_is_passed_over(
    line: Line, towers: Towers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(towers[0], tmp_path / "image.onnx")
    shutil.copytree(towers[1], tmp_path / "b-embed-text-b.onnx")
    shutil.copytree(towers[1], tmp_path / "a-embed-text-a.onnx")
    (tmp_path / "a-embed-text-a.onnx" / "model.onnx").write_bytes(b"")
    record = classify(settings((tmp_path / "image.onnx", towers[1]), tmp_path / "out", line.photo,
                               prompts=("two\nlines", "other")))  # fmt: skip
    assert record["failures"] == []
    assert list(record["inputs"][0]["probabilities"]) == ["two\nlines", "other"]
    assert "two\\nlines" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "b-embed-text-b.onnx")
    with pytest.raises(FileNotFoundError, match=r"no text tower of the same run beside it.*a-embed-text-a.*altered"):
        classify(settings((tmp_path / "image.onnx", towers[1]), tmp_path / "out", line.photo, force=True))


@pytest.mark.parametrize("shape", [(1, 65_000), (65_000, 1), (3, 5_000)])
def test_of_a_line_the_middle_is_cropped_before_it_is_resized(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all of it, a frame of 256 pixels would take 16.6 million columns; of 16 frames it is what it was."""
    sizes = []

    def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:  # type: ignore[type-arg]
        sizes.append(image.shape[:2])
        return resize_image(image, height, width)

    monkeypatch.setattr(preprocess, "resize_image", resize)
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    found = crop_image(image, 256, 256)
    assert found.shape == (256, 256, 3)
    short, long = min(shape), max(shape)
    assert sorted(sizes[0]) == [short, 16 * short]
    begin = (long - 16 * short) // 2
    middle = image[:, begin : begin + 16 * short] if shape[1] == long else image[begin : begin + 16 * short]
    np.testing.assert_array_equal(found, crop_image(middle, 256, 256))
    sizes.clear()
    crop_image(middle, 256, 256)
    assert sizes == [middle.shape[:2]]  # 16 frames are left as they are


def changed(folder: Path, target: Path, change: Callable[[Any], Any], *, without: str = "") -> Path:
    """A copy of an artifact with other contents of artifact.json, whole in itself."""
    shutil.copytree(folder, target)
    if without:
        (target / without).unlink()
    artifact = load_artifact(folder)
    save_artifact(change(artifact), target)
    return target


def test_towers_that_do_not_belong_together_or_are_too_old_are_refused(
    line: Line, towers: Towers, tmp_path: Path
) -> None:
    stranger = changed(towers[1], tmp_path / "x-embed-text-x.onnx",
                       lambda old: dataclasses.replace(old, parent={**old.parent, "weights_sha256": "0"}))  # fmt: skip
    old_image = changed(towers[0], tmp_path / "image.onnx", lambda old: dataclasses.replace(old, logit_scale=None))
    old_text = changed(towers[1], tmp_path / "text.onnx", lambda old: old, without="tokenizer.json")
    lone = changed(towers[0], tmp_path / "lone.onnx", lambda old: old)
    segmenter = line.artifact("segment", "fp32.onnx")
    for image, text, words in (
        (towers[0], stranger, "--text: found a text tower of another run"),
        (towers[0], segmenter, "--text: task: found segment, expected embed-text"),
        (old_image, towers[1], "logit_scale: found null, expected a number"),
        (towers[0], old_text, "tokenizer.json: not in this artifact"),
        (lone, None, "found no text tower of the same run beside it"),
        (segmenter, None, "task: found segment, expected embed-image; try `mobileclip-dense segment`"),
        (towers[1], None, "task: found embed-text, expected embed-image"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=words):
            classify(settings((image, towers[1]), tmp_path / "out", line.photo, text=text))
    assert not (tmp_path / "out" / "classify-summary.json").exists()
    with pytest.raises(ValueError, match=r"--templates: found 'a photo'"):
        settings(towers, tmp_path, line.photo, templates=("a photo",))
