import shutil
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
from open_clip.model import CustomTextCLIP
from PIL import Image
from safetensors.torch import load_file, save_file

from mobileclip_dense.artifact.files import read_json, sha256_of, write_json
from mobileclip_dense.config import ConvertWeightsConfig
from mobileclip_dense.models import convert
from mobileclip_dense.models.clip import build_clip
from mobileclip_dense.models.convert import convert_weights
from mobileclip_dense.models.encoders import Encoder
from mobileclip_dense.models.weights import load_clip_weights, load_encoder_weights
from tests.conftest import Line
from tests.models.foreign import randomise, to_apple

CAPTIONS = ["a red cone", "two cubes on a wooden floor"]


@pytest.fixture(scope="module")
def nano() -> CustomTextCLIP:
    torch.manual_seed(0)
    clip, _, _ = build_clip("nano")
    randomise(clip)
    return clip.eval()


@pytest.fixture(scope="module")
def mobileclip(tmp_path_factory: pytest.TempPathFactory) -> tuple[CustomTextCLIP, Path]:
    """A model of the published size with random weights, and the folder converted from its fused Apple file."""
    folder = tmp_path_factory.mktemp("mobileclip")
    torch.manual_seed(0)
    clip = open_clip.create_model("MobileCLIP2-S0").eval()
    randomise(clip)
    torch.save(to_apple(clip, fused=True), folder / "apple.pt")
    convert_weights(ConvertWeightsConfig(source=str(folder / "apple.pt"), model="MobileCLIP2-S0", out=folder / "out"))
    return clip, folder / "out"


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@torch.no_grad()
def test_stock_open_clip_gives_the_features_of_apples_fused_file(mobileclip: tuple[CustomTextCLIP, Path]) -> None:
    clip, folder = mobileclip
    stock, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    image = transform(Image.fromarray(pixels).resize((256, 256), Image.Resampling.NEAREST))
    assert image.shape == (3, 256, 256)
    torch.testing.assert_close(image[:, ::4, ::4], torch.from_numpy(pixels).permute(2, 0, 1) / 255)
    texts = open_clip.get_tokenizer(f"local-dir:{folder}")(CAPTIONS)
    small = image[None, :, ::4, ::4]
    assert relative(stock.eval().encode_image(small), clip.encode_image(small)) < 1e-5
    assert relative(stock.encode_text(texts), clip.encode_text(texts)) < 1e-6
    assert torch.equal(stock.logit_scale, clip.logit_scale)


@torch.no_grad()
def test_the_image_tower_loads_in_timm_as_the_command_prints_it(
    mobileclip: tuple[CustomTextCLIP, Path],
) -> None:
    clip, folder = mobileclip
    tower = timm.create_model("fastvit_mci0", num_classes=512)
    tensors = load_file(folder / "weights.safetensors").items()
    tower.load_state_dict({name[13:]: tensor for name, tensor in tensors if name.startswith("visual.trunk.")})
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert relative(tower.eval()(image), clip.visual.trunk(image)) < 1e-5


def test_the_file_alone_loads_by_the_call_that_is_printed(
    tmp_path: Path, nano: CustomTextCLIP, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(to_apple(nano), tmp_path / "apple.pt")
    convert_weights(ConvertWeightsConfig(source=str(tmp_path / "apple.pt"), model="nano", out=tmp_path / "out"))
    text = capsys.readouterr().out
    assert f"{tmp_path / 'apple.pt'} (Apple, train form)" in text
    assert "128x128 px, bilinear, shortest, pixels in 0..1, mean (0.0, 0.0, 0.0), std (1.0, 1.0, 1.0)" in text
    (call,) = (line.split(maxsplit=1)[1] for line in text.splitlines() if line.startswith("  or "))
    clip, _, _ = eval(f"open_clip.{call}")
    assert clip.visual.preprocess_cfg["mean"] == (0.0, 0.0, 0.0)
    assert clip.visual.preprocess_cfg["interpolation"] == "bilinear"
    assert all(torch.equal(tensor, nano.state_dict()[name]) for name, tensor in clip.state_dict().items())
    (call,) = (line.split(maxsplit=1)[1] for line in text.splitlines() if line.startswith("  timm "))
    eval(f"timm.{call}", {"timm": timm, "safetensors": sys.modules["safetensors"]})


def test_a_converted_folder_is_itself_a_source(tmp_path: Path, nano: CustomTextCLIP) -> None:
    save_file(nano.state_dict(), tmp_path / "open_clip.safetensors")
    convert_weights(
        ConvertWeightsConfig(source=str(tmp_path / "open_clip.safetensors"), model="nano", out=tmp_path / "out")
    )
    clip, _, _ = build_clip("nano")
    load_clip_weights(clip, tmp_path / "out", model="nano")
    assert all(torch.equal(tensor, nano.state_dict()[name]) for name, tensor in clip.state_dict().items())
    load_encoder_weights(Encoder("nano"), tmp_path / "out")


def test_our_run_keeps_its_image_size(line: Line, tmp_path: Path) -> None:
    convert_weights(ConvertWeightsConfig(source=str(line.clip), model="nano", out=tmp_path / "out"))
    stock = open_clip.create_model(f"local-dir:{tmp_path / 'out'}")
    assert stock.visual.image_size == (32, 32)
    expected = load_file(line.clip / "weights.safetensors")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in stock.state_dict().items())


@pytest.mark.parametrize("kind", ["fine-tuned", "pruned"])
def test_a_run_without_a_text_tower_is_refused_with_the_one_to_convert(line: Line, tmp_path: Path, kind: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(line.run("segment"), run)
    if kind == "pruned":
        write_json(run / "structure.json", {})
        record = read_json(run / "run.json") | {"structure_sha256": sha256_of(run / "structure.json")}
        write_json(run / "run.json", record)
    said = rf"run: found a {kind} run, which has no text tower, .*convert its initial weights, {line.clip}; .*--init"
    with pytest.raises(ValueError, match=said):
        convert_weights(ConvertWeightsConfig(source=str(run), model="nano", out=tmp_path / "out"))
    with pytest.raises(ValueError, match=r"weights\.safetensors: weights: found a dense model .*has no text tower"):
        convert_weights(
            ConvertWeightsConfig(source=str(run / "weights.safetensors"), model="nano", out=tmp_path / "out")
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("fault", ["expansion", "not a number"])
def test_features_that_differ_are_not_written(
    tmp_path: Path, nano: CustomTextCLIP, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    apple = to_apple(nano, fused=True)
    if fault == "not a number":
        apple["image_encoder.model.head.proj"] = apple["image_encoder.model.head.proj"] * torch.nan
    else:

        def wrong(clip: CustomTextCLIP, foreign: object, what: str) -> None:
            clip.load_state_dict(nano.state_dict())
            clip.visual.trunk.stages[1].blocks[0].token_mixer.mixer.conv_kxk[0].bn.bias.data += 0.1

        monkeypatch.setattr(convert, "fill_clip", wrong)
    torch.save(apple, tmp_path / "apple.pt")
    with pytest.raises(ValueError, match=r"features differ from the source's by .* nothing was written"):
        convert_weights(ConvertWeightsConfig(source=str(tmp_path / "apple.pt"), model="nano", out=tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["apple.pt"]


def test_nothing_is_overwritten_and_the_source_never(tmp_path: Path, nano: CustomTextCLIP) -> None:
    out = tmp_path / "out"
    out.mkdir()
    save_file(nano.state_dict(), out / "mine.safetensors")
    with pytest.raises(FileExistsError, match="--force"):
        convert_weights(ConvertWeightsConfig(source=str(out / "mine.safetensors"), model="nano", out=out))
    with pytest.raises(FileExistsError, match="it contains the source"):
        convert_weights(ConvertWeightsConfig(source=str(out / "mine.safetensors"), model="nano", out=out, force=True))
    assert [path.name for path in out.iterdir()] == ["mine.safetensors"]
