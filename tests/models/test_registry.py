"""Encoders match their specification, and a new encoder needs only one registration."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from timm.models import register_model
from timm.models._registry import _model_entrypoints
from timm.models.fastvit import FastVit, RepConditionalPosEnc

import mobileclip_dense.dense  # noqa: F401
from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.config.encoders import ENCODERS, MCI, EncoderSpec, register_encoder
from mobileclip_dense.config.heads import HEADS, HeadSpec, register_head
from mobileclip_dense.dense.model import build_model
from mobileclip_dense.dense.training.layer_decay import layers_below_top
from mobileclip_dense.models.encoders import Encoder
from mobileclip_dense.models.families.mci import fastvit_mci_nano
from mobileclip_dense.models.prunable import find_units, prune_model

CHANNELS = (16, 32, 64, 128, 256)
FIVE_STAGES = EncoderSpec(
    family=MCI, timm_name="fastvit_mci_five", strides=(4, 8, 16, 32, 64), channels=CHANNELS, label="five stages",
    description="as MCi3 and MCi4, narrow",
)  # fmt: skip


def fastvit_mci_five(pretrained: bool = False, **kwargs: Any) -> FastVit:
    positions = partial(RepConditionalPosEnc, spatial_shape=(7, 7))
    five: dict[str, Any] = dict(
        layers=(1, 1, 1, 1, 1), embed_dims=CHANNELS, mlp_ratios=(3,) * 5, se_downsamples=(False,) * 5,
        downsamples=(False, True, True, True, True), pos_embs=(None, None, None, positions, positions),
        token_mixers=("repmixer", "repmixer", "repmixer", "attention", "attention"),
    )  # fmt: skip
    return fastvit_mci_nano(pretrained, **five | kwargs)


@pytest.fixture(autouse=True)
def five(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The encoder "five", registered during a test."""
    if "fastvit_mci_five" not in _model_entrypoints:
        register_model(fastvit_mci_five)
    with monkeypatch.context() as patch:
        patch.setitem(ENCODERS, "five", FIVE_STAGES)
        yield


def config(head: str, **settings: Any) -> FinetuneConfig:
    return FinetuneConfig(data=Path("data"), out=Path("out"), encoder="five", head=head, crop_size_px=(128, 192),
                          neck_channels=16, head_channels=16, **settings)  # fmt: skip


@pytest.mark.parametrize("name", [*ENCODERS, "five"])
def test_strides_and_channels_of_a_specification_are_those_of_the_encoder(name: str) -> None:
    spec, (height, width) = ENCODERS[name], (384, 576)
    with torch.device("meta"):
        encoder = Encoder(name).eval()
        maps = encoder(torch.empty(1, 3, height, width))
    assert encoder.channels == spec.channels
    assert [tuple(found.shape[1:]) for found in maps] == [
        (channels, height // stride, width // stride)
        for channels, stride in zip(spec.channels, spec.strides, strict=True)
    ]
    assert len(encoder.stages()) == 1 + len(spec.strides)


@pytest.mark.parametrize("head", ["semantic_fpn", "fpn_lite", "upernet", "linear"])
def test_an_encoder_of_five_stages_takes_every_head_after_one_registration(head: str) -> None:
    model = build_model(config(head), 7).eval()
    with torch.no_grad():
        scores = model.decode_head(model.extract_feat(torch.rand(1, 3, 128, 192)))
    assert scores.shape == (1, 7, 32, 48)
    small = {"inputs": [torch.zeros(3, 100, 130, dtype=torch.uint8)], "data_samples": [SegDataSample()]}
    prepared = model.data_preprocessor(small)
    assert prepared["inputs"].shape == (1, 3, 128, 192), "padded to multiples of 64"


def test_five_stages_take_depth_and_detection_too() -> None:
    image = torch.rand(1, 3, 128, 192)
    depth = build_model(config("deconv", task="depth"), 1).eval()
    detector = build_model(config("mask_rcnn", task="detect"), 3).eval()
    with torch.no_grad():
        assert depth.decode_head(depth.extract_feat(image)).shape == (1, 1, 128, 192)
        maps = detector([image[0]], mode="tensor")
        assert len(maps) == 6
        assert detector([image[0]], mode="predict")[0]["boxes"].shape[1] == 4


def test_five_stages_are_frozen_chosen_and_decayed_one_by_one() -> None:
    backbone = MODELS.build(dict(type="PyramidEncoder", name="five", frozen_stages=4, out_indices=(1, 4)))
    trained = {name.split(".")[3] for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    assert trained == {"4"}
    assert [found.shape[1] for found in backbone(torch.rand(2, 3, 64, 64))] == [32, 256]
    below = layers_below_top(build_model(config("fpn_lite"), 3))
    for name, depth in (("stem", 6), ("stages.0", 5), ("stages.3", 2), ("stages.4", 1)):
        assert {value for key, value in below.items() if key.startswith(f"backbone.encoder.trunk.{name}.")} == {depth}
    assert {value for key, value in below.items() if key.startswith("decode_head.")} == {0}


def test_five_stages_are_pruned() -> None:
    model = build_model(config("semantic_fpn"), 3).eval()
    units = find_units(model, "semantic_fpn")
    pruned = prune_model(model, units, {unit.name: unit.rounded(unit.size / 2) for unit in units})
    with torch.no_grad():
        assert [found.shape[1] for found in pruned.backbone(torch.rand(1, 3, 64, 64))] == [c // 2 for c in CHANNELS]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(crop_size_px=(96, 128)), "two positive multiples of 64"),
        (dict(frozen_stages=6), "--frozen-stages: found 6, expected at most 5"),
        (dict(encoder="mci9"), "encoder: found 'mci9', expected one of nano, mci0"),
        (
            dict(head="deconv"),
            "--head: found deconv, expected for task segment semantic_fpn, fpn_lite, upernet, linear",
        ),
    ],
)
def test_settings_are_checked_against_the_registries(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(config("fpn_lite"), **settings)


def test_a_name_is_registered_once() -> None:
    register_encoder("five", FIVE_STAGES)
    with pytest.raises(ValueError, match="encoder: found 'five', which is registered already"):
        register_encoder("five", replace(FIVE_STAGES, label="another"))
    with pytest.raises(ValueError, match="head: found 'linear', which is registered already"):
        register_head("linear", HeadSpec(tasks=("segment",), builder="x:y", label="another"))
    assert HEADS["linear"].on_last_map
