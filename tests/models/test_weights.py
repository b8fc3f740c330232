from pathlib import Path

import open_clip
import pytest
import timm
import torch
from safetensors.torch import save_file

from mobileclip_dense.models.clip import build_clip
from mobileclip_dense.models.encoders import Encoder
from mobileclip_dense.models.weights import load_encoder_weights
from tests.conftest import Line

# timm's keys to Apple's, from the published layout of mobileclip_s*.pt; applied in this order.
_TO_APPLE = (
    ("stem.", "patch_embed."), ("stages.0.blocks", "network.0"), ("stages.1.blocks", "network.2"),
    ("stages.2.blocks", "network.4"), ("stages.3.blocks", "network.7"), ("stages.1.downsample.proj", "network.1.proj"),
    ("stages.2.downsample.proj", "network.3.proj"), ("stages.3.downsample.proj", "network.5.proj"),
    ("stages.3.pos_emb.pos_enc", "network.6.pe"), ("conv_kxk", "rbr_conv"), ("conv_scale", "rbr_scale"),
    ("identity", "rbr_skip"), ("large_conv", "lkb_origin"), ("mlp.", "convffn."), ("se.fc1", "se.reduce"),
    ("se.fc2", "se.expand"), ("final_conv.", "conv_exp."), (".gamma", ""),
)  # fmt: skip


def features(encoder: Encoder) -> list[torch.Tensor]:
    with torch.no_grad():
        return encoder.eval()(torch.linspace(0, 1, 3 * 64 * 64).reshape(1, 3, 64, 64))


def assert_same_features(a: Encoder, b: Encoder) -> None:
    for found, expected in zip(features(a), features(b), strict=True):
        torch.testing.assert_close(found, expected)


def test_an_open_clip_file_fills_the_encoder(tmp_path: Path) -> None:
    clip = open_clip.create_model("MobileCLIP2-S0")
    torch.save(clip.state_dict(), tmp_path / "open_clip.pt")
    encoder, reference = Encoder("mci0"), Encoder("mci0")
    load_encoder_weights(encoder, tmp_path / "open_clip.pt")
    trunk = clip.visual.trunk.state_dict()
    reference.trunk.load_state_dict({name: trunk[name] for name in reference.trunk.state_dict()})
    assert_same_features(encoder, reference)


def test_a_timm_file_fills_the_encoder(tmp_path: Path) -> None:
    model = timm.create_model("fastvit_mci0")
    save_file(model.state_dict(), tmp_path / "timm.safetensors")
    encoder = Encoder("mci0")
    load_encoder_weights(encoder, tmp_path / "timm.safetensors")
    model.eval()
    with torch.no_grad():
        image = torch.rand(1, 3, 64, 64)
        expected = model.forward_intermediates(image, intermediates_only=True)
        torch.testing.assert_close(encoder.eval()(image), expected)


def test_an_apple_file_fills_the_encoder(tmp_path: Path) -> None:
    reference = Encoder("mci0")
    apple = {"logit_scale": torch.tensor(1.0)}
    for name, tensor in reference.trunk.state_dict().items():
        for ours, theirs in _TO_APPLE:
            name = name.replace(ours, theirs)
        apple[f"image_encoder.model.{name}"] = tensor
    torch.save(apple, tmp_path / "mobileclip_s0.pt")
    encoder = Encoder("mci0")
    load_encoder_weights(encoder, tmp_path / "mobileclip_s0.pt")
    assert_same_features(encoder, reference)


def test_our_pretraining_run_loads_in_open_clip_and_here(line: Line) -> None:
    file = line.clip / "weights.safetensors"
    clip = open_clip.create_model("MobileCLIP-nano", pretrained=str(file))
    ours, tokenizer, _ = build_clip("nano", 32)
    assert clip.state_dict().keys() == ours.state_dict().keys()
    encoder = Encoder("nano")
    load_encoder_weights(encoder, line.clip)
    for name, tensor in encoder.trunk.state_dict().items():
        assert torch.equal(tensor, clip.visual.trunk.state_dict()[name])
    assert tokenizer(["a"]).shape == (1, 48)


def test_a_checkpoint_of_another_architecture_is_refused_with_its_keys(tmp_path: Path) -> None:
    save_file(timm.create_model("fastvit_mci0").state_dict(), tmp_path / "mci0.safetensors")
    with pytest.raises(ValueError, match=r"mci0\.safetensors: weights: not of encoder 'nano': .* left over \(stages"):
        load_encoder_weights(Encoder("nano"), tmp_path / "mci0.safetensors")


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no weights")
    with pytest.raises(ValueError, match=name):
        load_encoder_weights(Encoder("nano"), tmp_path / name)


def test_a_pickle_with_code_is_refused(tmp_path: Path) -> None:
    torch.save({"model": Encoder("nano")}, tmp_path / "pickle.pt")
    with pytest.raises(ValueError, match="tensors only"):
        load_encoder_weights(Encoder("nano"), tmp_path / "pickle.pt")
