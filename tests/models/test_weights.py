import contextlib
import copy
from pathlib import Path

import open_clip
import pytest
import timm
import torch
from huggingface_hub import constants
from open_clip.model import CustomTextCLIP
from open_clip.pretrained import _PRETRAINED, _mccfg
from safetensors.torch import save_file

from mobileclip_dense.models.clip import build_clip
from mobileclip_dense.models.encoders import Encoder
from mobileclip_dense.models.weights import load_clip_weights, load_encoder_weights
from tests.conftest import Line
from tests.models.foreign import fused_clip, randomise, to_apple

CAPTIONS = ["a red cone", "two cubes on a wooden floor"]


@pytest.fixture(scope="module")
def nano() -> CustomTextCLIP:
    """A small CLIP with the blocks of MobileCLIP-S1 and S2, every weight and statistic random."""
    torch.manual_seed(0)
    clip, _, _ = build_clip("nano", 64)
    randomise(clip)
    return clip.eval()


def clip_features(clip: CustomTextCLIP) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return clip.eval().encode_image(images), clip.encode_text(open_clip.get_tokenizer("MobileCLIP-nano")(CAPTIONS))


def assert_same_clip(found: CustomTextCLIP, expected: CustomTextCLIP) -> None:
    for ours, theirs in zip(clip_features(found), clip_features(expected), strict=True):
        assert (ours - theirs).norm() / theirs.norm() < 1e-5
    assert torch.equal(found.logit_scale, expected.logit_scale)


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


@pytest.mark.parametrize("fused", [False, True])
def test_an_apple_file_fills_the_encoder(tmp_path: Path, nano: CustomTextCLIP, fused: bool) -> None:
    torch.save(to_apple(nano, fused=fused), tmp_path / "mobileclip.pt")
    encoder, reference = Encoder("nano"), Encoder("nano")
    with pytest.warns(UserWarning, match="no statistics of data") if fused else contextlib.nullcontext():
        load_encoder_weights(encoder, tmp_path / "mobileclip.pt")
    trunk = nano.visual.trunk.state_dict()
    reference.trunk.load_state_dict({name: trunk[name] for name in reference.trunk.state_dict()})
    assert_same_features(encoder, reference)


@pytest.mark.parametrize("source", ["open_clip", "open_clip fused", "Apple", "Apple fused", "training checkpoint"])
def test_both_towers_load_from_every_source(tmp_path: Path, nano: CustomTextCLIP, source: str) -> None:
    state = {
        "open_clip": lambda: nano.state_dict(),
        "open_clip fused": lambda: fused_clip(nano),
        "Apple": lambda: to_apple(nano),
        "Apple fused": lambda: to_apple(nano, fused=True),
        "training checkpoint": lambda: {
            "epoch": 3,
            "state_dict": {f"module.{name}": tensor for name, tensor in nano.state_dict().items()},
            "optimizer": torch.optim.AdamW(nano.parameters()).state_dict(),
        },
    }[source]()
    torch.save(state, tmp_path / "weights.pt")
    clip, _, _ = build_clip("nano", 64)
    form = load_clip_weights(clip, tmp_path / "weights.pt", model="nano")
    assert_same_clip(clip, nano)
    assert ("fused" in form, "Apple" in form) == ("fused" in source, "Apple" in source)
    assert not any("reparam" in name for name in clip.state_dict())


def test_an_expanded_network_can_be_trained(nano: CustomTextCLIP, tmp_path: Path) -> None:
    torch.save(fused_clip(nano), tmp_path / "fused.pt")
    clip, _, _ = build_clip("nano", 64)
    load_clip_weights(clip, tmp_path / "fused.pt", model="nano")
    for _ in range(2):  # at first only the gains of the silent branches have a gradient, then their kernels too
        clip.zero_grad()
        clip.train().encode_image(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))).sum().backward()
        torch.optim.SGD(clip.visual.parameters(), lr=0.01).step()
    silent = [name for name, p in clip.visual.trunk.named_parameters() if p.grad is None or not p.grad.any()]
    assert all(not name.endswith(("conv.weight", "bn.weight")) for name in silent), silent


def test_a_timm_file_fills_the_image_tower_alone(tmp_path: Path, nano: CustomTextCLIP) -> None:
    save_file(nano.visual.trunk.state_dict(), tmp_path / "timm.safetensors")
    clip, _, _ = build_clip("nano", 64)
    text = copy.deepcopy(clip.text.state_dict())
    assert "timm" in load_clip_weights(clip, tmp_path / "timm.safetensors", model="nano", towers="image")
    torch.testing.assert_close(clip_features(clip)[0], clip_features(nano)[0])
    assert all(torch.equal(tensor, text[name]) for name, tensor in clip.text.state_dict().items())
    with pytest.raises(ValueError, match=r"missing \(logit_scale, text\."):
        load_clip_weights(clip, tmp_path / "timm.safetensors", model="nano")


def test_a_plain_vit_loads_at_another_image_size_as_in_open_clip(tmp_path: Path) -> None:
    reference = open_clip.create_model("ViT-S-32-alt", force_image_size=64)
    save_file(reference.state_dict(), tmp_path / "vit.safetensors")
    clip, _, _ = build_clip("ViT-S-32-alt", 128)
    load_clip_weights(clip, tmp_path / "vit.safetensors", model="ViT-S-32-alt")
    stock = open_clip.create_model(
        "ViT-S-32-alt", force_image_size=128, pretrained=str(tmp_path / "vit.safetensors")
    )  # fmt: skip
    assert all(torch.equal(tensor, stock.state_dict()[name]) for name, tensor in clip.state_dict().items())


def test_published_weights_come_from_the_cache_of_the_hub(
    tmp_path: Path, nano: CustomTextCLIP, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tag is resolved by open_clip and the hub's client; the cache contains a file for the repository."""
    monkeypatch.setitem(_PRETRAINED, "MobileCLIP-nano", {"scenes": _mccfg(hf_hub="us/MobileCLIP-nano/")})
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    clip, _, _ = build_clip("nano", 64)
    with pytest.raises(OSError, match="scenes: weights: could not be downloaded from the hub"):
        load_clip_weights(clip, "scenes", model="nano")
    repository = tmp_path / "models--us--MobileCLIP-nano"
    (repository / "snapshots" / "0").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0")
    save_file(nano.state_dict(), repository / "snapshots" / "0" / "open_clip_model.safetensors")
    assert "scenes" in load_clip_weights(clip, "scenes", model="nano")
    assert_same_clip(clip, nano)


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
    with pytest.raises(ValueError, match=r"mci0\.safetensors: weights: not of encoder 'nano': .* over \(trunk.stages"):
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


def write_bad_source(kind: str, folder: Path, nano: CustomTextCLIP) -> str:
    file = folder / "bad.pt"
    match kind:
        case "optimizer":
            torch.save(torch.optim.AdamW(nano.parameters()).state_dict(), file)
        case "truncated":
            torch.save(nano.state_dict(), file)
            file.write_bytes(file.read_bytes()[:-5000])
        case "truncated.safetensors":
            file = folder / "bad.safetensors"
            save_file(nano.state_dict(), file)
            file.write_bytes(file.read_bytes()[:-5000])
        case "damaged":
            torch.save({"scale": torch.zeros(3)}, file, _use_new_zipfile_serialization=False)
            file.write_bytes(file.read_bytes().replace(b"scale", b"sc\x85le"))
        case "numbered":
            torch.save({1: torch.zeros(3)}, file)
        case "another model":
            torch.save(open_clip.create_model("ViT-S-32-alt", force_image_size=64).state_dict(), file)
        case "other shape":
            torch.save(nano.state_dict() | {"visual.trunk.head.fc.bias": torch.zeros(64)}, file)
        case "other shape fused":
            fused = to_apple(nano, fused=True)
            fused["image_encoder.model.patch_embed.0.reparam_conv.weight"] = torch.zeros(16, 1, 3, 3)
            torch.save(fused, file)
        case "half fused":
            fused = to_apple(nano, fused=True)
            del fused["image_encoder.model.network.6.reparam_conv.bias"]
            torch.save(fused, file)
        case "more than two towers":
            torch.save(to_apple(nano) | {"decoder.weight": torch.zeros(3)}, file)
        case "mobileclip_s0":
            torch.save(
                to_apple(nano) | {"text_encoder.transformer.0.token_mixer.norm.rbr_skip.bias": torch.zeros(3)}, file
            )
        case "folder":
            file.mkdir()
        case "address":
            return "https://example.com/mobileclip_s2.pt"
        case "no tag":
            return "datacompdr"
    return str(file)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("optimizer", r"expected a state dict of tensors, found a dict of state, param_groups"),
        ("truncated", r"bad\.pt: weights: expected safetensors or a torch file with tensors only"),
        ("truncated.safetensors", r"bad\.safetensors: not a readable safetensors file"),
        ("damaged", r"bad\.pt: weights: expected safetensors or a torch file with tensors only"),
        ("numbered", r"expected a state dict of tensors, found a dict of 1"),
        ("another model", r"not of model 'nano': \d+ missing \(.*left over \(.*choose the --model"),
        ("other shape", r"1 other shape \(visual.trunk.head.fc.bias \(64,\) instead of \(128,\)"),
        ("other shape fused", r"2 other shape \(visual.trunk.stem.0.conv_kxk.0.conv.weight \(16, 1, 3, 3\) instead"),
        ("half fused", r"pos_emb.pos_enc.bias.*left over \(visual.trunk.stages.3.pos_emb.reparam_conv.weight"),
        ("more than two towers", r"0 missing; 1 left over \(decoder.weight\)"),
        ("mobileclip_s0", r"mixes convolutions with attention .*MobileCLIP2-S0"),
        ("folder", r"bad\.pt/config\.json: no such file"),
        ("address", r"found a URL, expected a file; download it first"),
        ("no tag", r"datacompdr: weights: no such file .* of MobileCLIP-nano.s published weights: there are"),
    ],
)
def test_what_is_no_clip_of_this_model_is_refused_in_words(
    tmp_path: Path, nano: CustomTextCLIP, kind: str, message: str
) -> None:
    clip, _, _ = build_clip("nano", 64)
    before = copy.deepcopy(clip.state_dict())
    with pytest.raises((ValueError, OSError), match=message):
        load_clip_weights(clip, write_bad_source(kind, tmp_path, nano), model="nano")
    assert all(torch.equal(tensor, before[name]) for name, tensor in clip.state_dict().items())
