import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from mobileclip_dense.config.encoders import ENCODERS
from mobileclip_dense.models.clip import build_clip, clip_name, open_clip_config, preprocessing_of


@pytest.mark.parametrize(
    ("model", "mean", "interpolation"),
    [
        ("MobileCLIP-S1", (0.0, 0.0, 0.0), "bilinear"),
        ("MobileCLIP-B", (0.0, 0.0, 0.0), "bilinear"),
        ("MobileCLIP2-S2", (0.0, 0.0, 0.0), "bilinear"),
        ("MobileCLIP2-S3", (0.48145466, 0.4578275, 0.40821073), "bilinear"),
        ("MobileCLIP2-L-14", (0.48145466, 0.4578275, 0.40821073), "bicubic"),
        ("ViT-B-16", (0.48145466, 0.4578275, 0.40821073), "bicubic"),
        ("ViT-M-16", (0.48145466, 0.4578275, 0.40821073), "bicubic"),  # no published weights
    ],
)
def test_preprocessing_is_that_of_the_published_weights(
    model: str, mean: tuple[float, ...], interpolation: str
) -> None:
    found = preprocessing_of(model)
    assert found.normalization.mean == mean
    assert found.interpolation == interpolation


def test_preprocessing_of_single_weights_may_differ() -> None:
    assert preprocessing_of("ViT-L-14").normalization.mean[0] == 0.48145466
    assert preprocessing_of("ViT-L-14", "laion2b_s32b_b82k").normalization.mean == (0.5, 0.5, 0.5)
    assert preprocessing_of("ViT-H-14", "dfn5b").resize_mode == "squash"


def test_dense_and_clip_training_of_an_encoder_see_the_same_pixels() -> None:
    for name, spec in ENCODERS.items():
        if spec.clip_name:
            assert preprocessing_of(name).normalization == spec.normalization


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("mobileclip-s2", "did you mean MobileCLIP-S2"),
        ("vitb16", "did you mean ViT-B-16"),
        ("swin_l", "expected nano, mci0, mci1, mci2, vit_b16_clip, vit_b16_mci or a name"),
        ("coca_ViT-B-32", "a CoCa, expected a model with two towers"),
    ],
)
def test_an_unknown_model_is_refused_with_those_of_similar_names(model: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_clip(model)


def test_our_names_stand_for_open_clip_models() -> None:
    assert [clip_name(name) for name in ("mci0", "mci1", "mci2")] == [
        "MobileCLIP2-S0", "MobileCLIP-S1", "MobileCLIP-S2"
    ]  # fmt: skip
    assert all(clip_name(name) in open_clip.list_models() for name, spec in ENCODERS.items() if spec.clip_name)


def test_any_open_clip_model_is_built_at_the_size_asked_for() -> None:
    model, tokenizer, normalization = build_clip("ViT-S-32-alt", 64)
    image, text, scale = model.eval()(torch.rand(2, 3, 64, 64), tokenizer(["a cone", "two cones"]))
    assert image.shape == text.shape == (2, 256)
    torch.testing.assert_close(image.norm(dim=1), torch.ones(2))
    assert scale.item() == pytest.approx(1 / 0.07)
    assert normalization.mean == (0.48145466, 0.4578275, 0.40821073)
    assert build_clip("nano")[0].visual.image_size == (128, 128)


def test_a_folder_with_our_config_gives_stock_open_clip_the_right_transform(tmp_path: Path) -> None:
    model, tokenizer, _ = build_clip("nano", 64)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    (tmp_path / "open_clip_config.json").write_text(json.dumps(open_clip_config("nano", 64)))
    stock, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    image = transform(Image.fromarray(pixels))
    torch.testing.assert_close(image, torch.from_numpy(pixels).permute(2, 0, 1) / 255)
    with torch.no_grad():
        torch.testing.assert_close(stock.eval().encode_image(image[None]), model.eval().encode_image(image[None]))
    captions = ["a red cone"]
    assert torch.equal(open_clip.get_tokenizer(f"local-dir:{tmp_path}")(captions), tokenizer(captions))
