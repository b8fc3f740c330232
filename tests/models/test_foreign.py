"""Published layouts, each made from a model of the library that defines it, with random weights."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import open_clip.transformer
import pytest
import timm
import torch
from mmseg.models.backbones import SwinTransformer
from mmseg.registry import MODELS
from mmseg.utils import register_all_modules
from open_clip.model import CLIP, CustomTextCLIP
from safetensors.torch import save_file
from torch import nn

import mobileclip_dense.dense  # noqa: F401
from mobileclip_dense.artifact.preprocess import Normalization
from mobileclip_dense.config.encoders import ENCODERS
from mobileclip_dense.models import sources, weights
from mobileclip_dense.models.encoders import Encoder
from mobileclip_dense.models.foreign import encoder_weights, renormalized
from mobileclip_dense.models.weights import load_encoder_weights, load_whole_model
from tests.models.foreign import TINY, TINY_SWIN, TINY_VIT, State, to_augreg, to_microsoft

SWIN = dict(TINY_SWIN, always_partition=True)
MMSEG_SWIN = dict(embed_dims=8, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8), window_size=4)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, spec in TINY.items():
        monkeypatch.setitem(ENCODERS, name, spec)


def random_weights(model: nn.Module) -> Any:
    """Set all parameters to values other than 0 and 1, so that missing or swapped ones are noticed."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        scale, offset = (0.3, 1.0) if parameter.ndim == 1 and name.endswith("weight") else (0.1, 0.0)
        parameter.data.normal_(offset, scale, generator=generator)
    model.eval()
    return model


def image(height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def last_map(trunk: Any, pixels: torch.Tensor) -> torch.Tensor:
    return trunk.forward_intermediates(pixels, indices=1, intermediates_only=True)[0]


def loaded(name: str, source: Path | str) -> Encoder:
    encoder = Encoder(name).eval()
    load_encoder_weights(encoder, source)
    return encoder


def timm_vit(**arguments: Any) -> Any:
    return random_weights(timm.create_model("vit_base_patch16_224", **{"num_classes": 5, **TINY_VIT, **arguments}))


def test_open_clips_vit_gives_the_features_it_has_there(tmp_path: Path) -> None:
    tower = random_weights(open_clip.transformer.VisionTransformer(64, 16, 24, 4, 2, 4.0, output_dim=8))
    state = {f"visual.{name}": tensor for name, tensor in tower.state_dict().items()}
    text = {"transformer.resblocks.0.ln_1.weight": torch.zeros(16), "positional_embedding": torch.zeros(77, 16),
            "logit_scale": torch.zeros([])}  # fmt: skip
    torch.save({"epoch": 1, "state_dict": state | text}, tmp_path / "clip.pt")
    found = last_map(loaded("tiny_vit_clip", tmp_path / "clip.pt").trunk, image())
    with torch.no_grad():
        expected = tower.forward_intermediates(image(), indices=1, intermediates_only=True)["image_intermediates"][0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("source", ["timm", "MAE", "MAE encoder", "MAWS", "MAWS CLIP", "our dense run"])
def test_plain_vits_load_under_every_name(tmp_path: Path, source: str) -> None:
    vit = timm_vit()
    state: State = vit.state_dict()
    encoder = {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
    decoder = {"mask_token": torch.zeros(1, 1, 8), "decoder_pos_embed": torch.zeros(1, 17, 8),
               "decoder_embed.weight": torch.zeros(8, 24), "decoder_blocks.0.norm1.bias": torch.zeros(8),
               "decoder_norm.bias": torch.zeros(8), "decoder_pred.bias": torch.zeros(768)}  # fmt: skip
    pyramid = random_weights(Encoder("tiny_vit").pyramid).state_dict()
    torch.save(
        {
            "timm": state,
            "MAE": {"model": encoder | decoder, "epoch": 800, "args": argparse.Namespace(mask_ratio=0.75)},
            "MAE encoder": {"model": encoder},
            "MAWS": encoder,
            "MAWS CLIP": {f"vision_encoder.{name}": tensor for name, tensor in encoder.items()}
            | {"vision_projection": torch.zeros(24, 8), "text_encoder.norm.bias": torch.zeros(3)},
            "our dense run": {f"backbone.encoder.trunk.{name}": tensor for name, tensor in encoder.items()}
            | {f"backbone.encoder.pyramid.{name}": tensor for name, tensor in pyramid.items()}
            | {"decode_head.conv_seg.bias": torch.zeros(3)},
        }[source],
        tmp_path / "weights.pth",
    )
    found = loaded("tiny_vit", tmp_path / "weights.pth")
    torch.testing.assert_close(last_map(found.trunk, image()), last_map(vit, image()))
    same = [torch.equal(tensor, pyramid[name]) for name, tensor in found.pyramid.state_dict().items()]
    assert all(same) if source == "our dense run" else not all(same)


@pytest.mark.parametrize("gammas", ["timm", "original"])
def test_deit_3_becomes_a_plain_vit_exactly(tmp_path: Path, gammas: str) -> None:
    deit = random_weights(timm.create_model("deit3_base_patch16_224", num_classes=5, **TINY_VIT))
    state = {
        name if gammas == "timm" else name.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): tensor
        for name, tensor in deit.state_dict().items()
    }
    assert state["pos_embed"].shape[1] == 16  # none for the class token
    torch.save({"model": state}, tmp_path / "deit.pth")
    found = loaded("tiny_vit", tmp_path / "deit.pth")
    torch.testing.assert_close(last_map(found.trunk, image()), last_map(deit, image()), rtol=1e-5, atol=1e-5)


def test_augreg_takes_its_own_normalization_into_the_patch_embedding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vit = timm_vit(num_classes=0)
    np.savez(tmp_path / "B_16.npz", **to_augreg(vit))
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **arguments: create(name, **{**TINY_VIT, **arguments}))
    found = loaded("tiny_vit", tmp_path / "B_16.npz")
    mean, std = (torch.tensor(v)[:, None, None] for v in (found.normalization.mean, found.normalization.std))
    torch.testing.assert_close(
        last_map(found.trunk, (image() - mean) / std), last_map(vit, (image() - 0.5) / 0.5), rtol=1e-5, atol=1e-5
    )
    np.savez(tmp_path / "other.npz", weight=np.zeros(3))
    with pytest.raises(ValueError, match=r"other\.npz: weights: expected a ViT-B/16 in Google's format"):
        loaded("tiny_vit", tmp_path / "other.npz")


def test_weights_by_timms_name_bring_their_normalization(monkeypatch: pytest.MonkeyPatch) -> None:
    vit = timm_vit()
    vit.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    monkeypatch.setattr(sources, "_fetch_timm", lambda name: {"vit_base_patch16_224.augreg_in21k": vit}[name])
    found = loaded("tiny_vit", "timm:vit_base_patch16_224.augreg_in21k")
    mean, std = (torch.tensor(v)[:, None, None] for v in (found.normalization.mean, found.normalization.std))
    torch.testing.assert_close(
        last_map(found.trunk, (image() - mean) / std), last_map(vit, (image() - 0.5) / 0.5), rtol=1e-5, atol=1e-5
    )


def test_a_difference_of_normalization_that_cannot_be_folded_is_refused() -> None:
    half, unit = (Normalization(mean=(v,) * 3, std=(s,) * 3) for v, s in ((0.5, 0.5), (0.0, 1.0)))
    with pytest.raises(ValueError, match=r"found weights for pixels with mean \(0.5, 0.5, 0.5\)"):
        renormalized({"stem.weight": torch.zeros(3)}, half, unit)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("timm:vit_base_patch16_clip_quickgelu_224.openai", "another activation"),
        ("timm:vit_b17", "no such published weights"),
        ("nowhere.npz", "nowhere.npz: weights: no such file"),
    ],
)
def test_a_source_that_is_none_is_refused_in_words(source: str, message: str) -> None:
    with pytest.raises((ValueError, OSError), match=message):
        loaded("tiny_vit_clip", source)


def test_position_embeddings_of_another_grid_are_resampled_as_timm_does(tmp_path: Path) -> None:
    larger = timm_vit(img_size=96)
    save_file(larger.state_dict(), tmp_path / "larger.safetensors")
    found = loaded("tiny_vit", tmp_path / "larger.safetensors")
    larger.set_input_size((64, 64))
    torch.testing.assert_close(found.trunk.pos_embed, larger.pos_embed)


def test_swin_loads_from_microsofts_names_and_timms(tmp_path: Path) -> None:
    swin = random_weights(timm.create_model("swin_large_patch4_window12_384", num_classes=5, **SWIN))
    torch.save({"model": to_microsoft(swin.state_dict())}, tmp_path / "microsoft.pth")
    torch.save(swin.state_dict(), tmp_path / "timm.pth")
    for name in ("microsoft", "timm"):
        trunk = loaded("tiny_swin", tmp_path / f"{name}.pth").trunk.state_dict()
        assert all(torch.equal(tensor, swin.state_dict()[name]) for name, tensor in trunk.items())


def test_swin_of_another_window_is_resampled_as_timm_does(tmp_path: Path) -> None:
    other = random_weights(timm.create_model("swin_large_patch4_window12_384", **{**SWIN, "window_size": 3}))
    torch.save(other.state_dict(), tmp_path / "window3.pth")
    found = loaded("tiny_swin", tmp_path / "window3.pth").trunk.layers[0].blocks[1].attn
    reference = other.layers[0].blocks[1].attn
    reference.set_window_size((4, 4))
    torch.testing.assert_close(found.relative_position_bias_table, reference.relative_position_bias_table)


def test_swin_gives_mmsegmentations_features(tmp_path: Path) -> None:
    """Sizes with and without padding of the windows. The padding must come before the shift."""
    theirs = random_weights(SwinTransformer(**MMSEG_SWIN))
    state = {f"backbone.{name}": tensor for name, tensor in theirs.state_dict().items()}
    torch.save({"meta": {"CLASSES": ("a", "b")}, "state_dict": state}, tmp_path / "upernet_swin.pth")
    ours = loaded("tiny_swin", tmp_path / "upernet_swin.pth")
    for size in ((64, 64), (96, 160)):
        with torch.no_grad():
            for found, expected in zip(ours(image(*size)), theirs(image(*size)), strict=True):
                torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def upernet(backbone: dict[str, Any], channels: list[int], num_classes: int = 150, width: int = 512) -> nn.Module:
    """mmsegmentation's config of Swin and UPerNet, with any backbone."""
    register_all_modules()
    head = dict(num_classes=num_classes, norm_cfg=dict(type="BN"), align_corners=False, dropout_ratio=0.1,
                loss_decode=dict(type="CrossEntropyLoss"))  # fmt: skip
    return MODELS.build(
        dict(
            type="EncoderDecoder",
            backbone=backbone,
            decode_head=dict(type="UPerHead", in_channels=channels, in_index=[0, 1, 2, 3], pool_scales=(1, 2, 3, 6),
                             channels=width, **head),
            auxiliary_head=dict(type="FCNHead", in_channels=channels[2], in_index=2, channels=width // 2, num_convs=1,
                                concat_input=False, **head),
            test_cfg=dict(mode="whole"),
        )
    )  # fmt: skip


def test_a_whole_checkpoint_of_mmsegmentation_gives_the_same_scores(tmp_path: Path) -> None:
    channels = [8, 16, 32, 64]
    theirs = random_weights(upernet(dict(type="SwinTransformer", **MMSEG_SWIN), channels, 4, 8))
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "upernet_swin.pth")
    ours = upernet(dict(type="PyramidEncoder", name="tiny_swin"), channels, 4, 8).eval()
    load_whole_model(ours, tmp_path / "upernet_swin.pth")
    with torch.no_grad():
        found, expected = (model.encode_decode(image(), [{"img_shape": (64, 64)}]) for model in (ours, theirs))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    other = upernet(dict(type="PyramidEncoder", name="tiny_swin"), channels, 7, 8)
    with pytest.raises(ValueError, match=r"upernet_swin\.pth: weights: not of this model: .*conv_seg.bias \(4,\) inst"):
        load_whole_model(other, tmp_path / "upernet_swin.pth")


def test_the_published_swin_l_with_upernet_loads_without_a_leftover_key(monkeypatch: pytest.MonkeyPatch) -> None:
    channels = [192, 384, 768, 1536]
    swin = dict(type="SwinTransformer", pretrain_img_size=384, embed_dims=192, depths=(2, 2, 18, 2),
                num_heads=(6, 12, 24, 48), window_size=12)  # fmt: skip
    monkeypatch.setattr(torch, "linspace", partial(torch.linspace, device="cpu"))  # mmseg takes items of one
    with torch.device("meta"):
        theirs = upernet(swin, channels).state_dict()
        ours = upernet(dict(type="PyramidEncoder", name="swin_l"), channels)
    assert "backbone.stages.2.blocks.17.attn.w_msa.relative_position_index" in theirs
    monkeypatch.setattr(weights, "read_state_dict", lambda _: theirs)
    load_whole_model(ours, Path("upernet_swin_large.pth"))
    found = encoder_weights(theirs, ours.get_submodule("backbone.encoder.trunk"))
    assert len(found.trunk) + len(found.pyramid) == len(ours.get_submodule("backbone").state_dict())


@pytest.mark.parametrize(
    ("encoder", "source"),
    [
        ("vit_b16_clip", "ViT-B-16"),
        ("vit_b16_clip", "vit_base_patch16_clip_384"),
        ("vit_b16_mci", "MobileCLIP-B"),
        ("vit_b16_mci", "vit_base_mci_224"),
        ("vit_b16", "vit_base_patch16_384"),
        ("vit_b16", "deit3_base_patch16_224"),
        ("swin_l", "swin_large_patch4_window7_224"),
    ],
)
def test_published_architectures_fit_to_the_last_key(
    encoder: str, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Published models at full size, without tensors; of open_clip's, the whole state dict with the text tower."""
    monkeypatch.setattr("timm.layers.pos_embed_rel._USE_SCIPY", False)  # scipy cannot resample what is not there
    with torch.device("meta"):
        if source in open_clip.list_models():
            build = CustomTextCLIP if source == "MobileCLIP-B" else CLIP
            settings = {k: v for k, v in open_clip.get_model_config(source).items() if k != "custom_text"}
            state = build(**settings).state_dict()
        else:
            state = timm.create_model(source).state_dict()
        ours = Encoder(encoder)
    monkeypatch.setattr(sources, "read_state_dict", lambda _: state)
    load_encoder_weights(ours, "published.pt")
    found = encoder_weights(state, ours.trunk).trunk
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in ours.trunk.state_dict().items()}


@pytest.mark.parametrize(
    ("encoder", "other", "message"),
    [
        ("tiny_vit", dict(patch_size=32), r"other shape \(trunk.patch_embed.proj.weight \(24, 3, 32, 32\) instead of"),
        ("tiny_vit", dict(embed_dim=32), r"other shape \(trunk.blocks.0.attn.proj.bias \(32,\) instead of \(24,\)"),
        ("tiny_vit", dict(depth=5), r"12 left over \(trunk.blocks.4.attn.proj.bias"),
        ("tiny_vit_clip", {}, r"trunk.norm_pre.bias.*left over \(trunk.patch_embed.proj.bias\)"),
        ("nano", {}, r"not of encoder 'nano': .* left over \(trunk.blocks"),
        ("tiny_swin", {}, r"not of encoder 'tiny_swin': .* left over \(trunk.blocks"),
    ],
)
def test_a_vit_of_another_shape_is_refused_with_keys_and_shapes(
    tmp_path: Path, encoder: str, other: dict[str, int], message: str
) -> None:
    torch.save(timm_vit(**other).state_dict(), tmp_path / "other.pth")
    with pytest.raises(ValueError, match=message):
        loaded(encoder, tmp_path / "other.pth")


def test_a_swin_of_another_shape_is_refused_with_keys_and_shapes(tmp_path: Path) -> None:
    other = {**SWIN, "embed_dim": 16, "num_heads": (2, 4, 8, 16)}
    state = timm.create_model("swin_large_patch4_window12_384", **other).state_dict()
    torch.save(to_microsoft(state), tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other shape \(trunk.layers.0.blocks.0.attn.proj.bias \(16,\)"):
        loaded("tiny_swin", tmp_path / "other.pth")
