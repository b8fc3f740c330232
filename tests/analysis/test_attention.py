import json
import math
from pathlib import Path

import pytest
import timm.layers
import torch
from PIL import Image
from timm.models import fastvit
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from mobileclip_dense.analysis.attention import (
    attention_distance,
    attention_layers,
    grid_of,
    recompute_attention,
    watch_attention,
)
from mobileclip_dense.analysis.attention_distance import measure_reach
from mobileclip_dense.analysis.image_tower import ImageTower, load_images
from mobileclip_dense.artifact.preprocess import Normalization
from tests.analysis.conftest import Command


def test_hidden_images_are_not_looked_at(tmp_path: Path) -> None:
    for name in ("a.png", "._a.png", ".ipynb_checkpoints/a-checkpoint.png", "__MACOSX/b.png", "below/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), "white" if name[0].isalpha() else "black").save(tmp_path / name)
    assert [image.min() for image in load_images(tmp_path, 9)] == [255, 255]


def test_identity_attention_reaches_nowhere_and_uniform_attention_the_mean_distance() -> None:
    identity, uniform = torch.eye(4), torch.full((4, 4), 0.25)
    distances, shares = attention_distance(torch.stack((identity, uniform))[None], (2, 2), 16)
    assert distances.tolist() == pytest.approx([0, 16 * (1 + 1 + math.sqrt(2)) / 4])  # itself, two sides, the diagonal
    assert shares.tolist() == pytest.approx([0, 0])


def test_distance_is_weighted_by_attention_and_the_grid_is_read_row_by_row() -> None:
    attention = torch.zeros(1, 1, 6, 6)  # 2 rows, 3 columns: a quarter of the attention to patch 5, the rest to itself
    attention[0, 0] = 0.75 * torch.eye(6)
    attention[0, 0, :, 5] += 0.25
    to_last = [math.sqrt(5), math.sqrt(2), 1, 2, 1, 0]
    distances, _ = attention_distance(attention, (2, 3), 8)
    assert float(distances) == pytest.approx(8 * 0.25 * sum(to_last) / 6)


def test_the_class_token_has_no_distance_and_its_share_is_told() -> None:
    attention = torch.zeros(1, 1, 5, 5)
    attention[0, 0, 0] = 0.2  # the class token's own row does not count
    attention[0, 0, 1:, 0] = 0.6
    attention[0, 0, 1:, 1:] = 0.1
    distances, shares = attention_distance(attention, (2, 2), 16)
    assert float(distances) == pytest.approx(16 * (2 + math.sqrt(2)) / 4)
    assert float(shares) == pytest.approx(0.6)


def test_patches_form_a_grid_of_squares_or_are_refused() -> None:
    assert grid_of(1 + 4 * 6, 1, (64, 96)) == (4, 6)
    assert grid_of(9, 0, (96, 96)) == (3, 3)
    with pytest.raises(ValueError, match="found 24 patches of a 64x64 image, expected a grid of square patches"):
        grid_of(25, 1, (64, 64))


@pytest.mark.parametrize(
    "layer",
    [
        timm.layers.Attention(32, num_heads=4, qkv_bias=True, qk_norm=True, norm_layer=nn.LayerNorm),
        timm.layers.Attention(32, num_heads=2, gated=True, scale_norm=True, norm_layer=nn.LayerNorm),
        fastvit.Attention(32, head_dim=8),
    ],
    ids=["norms", "gate", "fastvit"],
)
def test_recomputed_attention_is_the_one_that_timm_computes_unfused(layer: nn.Module) -> None:
    torch.manual_seed(0)
    layer.eval().fused_attn = False
    kept: list[torch.Tensor] = []
    layer.attn_drop.register_forward_hook(lambda _, arguments, __: kept.append(arguments[0]))
    tokens = 3 * (torch.randn(2, 32, 3, 3) if isinstance(layer, fastvit.Attention) else torch.randn(2, 9, 32))
    with torch.no_grad():
        expected = layer(tokens)
        attention, output = recompute_attention(layer, tokens)
    torch.testing.assert_close(attention, kept[0], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("batch_first", [True, False])
def test_recomputed_attention_is_the_one_that_torch_returns(batch_first: bool) -> None:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(32, 4, batch_first=batch_first).eval()
    tokens = 3 * torch.randn(2, 9, 32)
    with torch.no_grad():
        expected, weights = layer(tokens, tokens, tokens, average_attn_weights=False)
        attention, output = recompute_attention(layer, tokens)
    torch.testing.assert_close(attention, weights, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)


def test_attention_of_an_unknown_kind_is_refused_and_hooks_do_not_stay() -> None:
    layer = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    tokens, mask = torch.randn(1, 4, 8), torch.triu(torch.full((4, 4), float("-inf")), 1)
    with (
        torch.no_grad(),
        pytest.raises(ValueError, match="layer 1, a MultiheadAttention: its output differs"),
        watch_attention([layer], lambda *_: None),
    ):
        layer(tokens, tokens, tokens, attn_mask=mask, need_weights=False)
    assert not layer._forward_hooks


def test_a_vit_whose_queries_are_zero_attends_uniformly_in_every_layer() -> None:
    trunk = VisionTransformer(img_size=64, patch_size=16, embed_dim=32, depth=2, num_heads=2, num_classes=0).eval()
    for block in trunk.blocks:
        nn.init.zeros_(block.attn.qkv.weight)
        nn.init.zeros_(block.attn.qkv.bias)
    unit = Normalization(mean=(0, 0, 0), std=(1, 1, 1))
    tower = ImageTower(name="vit", module=trunk, trunk=trunk, size_px=(64, 64), normalization=unit)
    reach = measure_reach(tower, [torch.rand(1, 3, 64, 64)])
    places = [(y, x) for y in range(4) for x in range(4)]
    mean = sum(math.dist(a, b) for a in places for b in places) / 256
    assert [layer.depth for layer in reach.layers] == [0.5, 1.0]
    for layer in reach.layers:
        assert layer.distances_px == pytest.approx([16 * mean] * 2, rel=1e-5)
        assert layer.prefix_shares == pytest.approx([1 / 17] * 2, rel=1e-4)
    assert reach.fields == []


def test_the_command_measures_runs_of_every_kind(
    analyze: Command, clip_run: Path, segment_run: Path, vit_run: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "reach.png"
    analyze("attention-distance", vit_run, clip_run, segment_run, "--images", photos, "--out", out)
    figures = json.loads(out.with_suffix(".json").read_text())
    assert figures["num_images"] == 2
    vit, clip, segment = figures["runs"]
    assert [layer["block"] for layer in vit["attention"]] == [1, 2, 3]
    assert all(len(layer["distances_px"]) == 2 and 0 < layer["mean_distance_px"] < 68 for layer in vit["attention"])
    assert vit["receptive_field"] is None
    for run, size in ((clip, [64, 64]), (segment, [64, 96])):
        assert run["size_px"] == size
        assert [layer["depth"] for layer in run["attention"]] == [1.0]  # only the last of five blocks has attention
        radii = [stage["radius_px"] for stage in run["receptive_field"]["stages"]]
        assert radii == sorted(radii) and 0 < radii[0] < radii[-1] < math.dist((0, 0), size)
        assert [stage["stride_px"] for stage in run["receptive_field"]["stages"]] == [4, 8, 16, 32]
    with Image.open(out) as picture:
        assert picture.width == 975


def test_attention_is_found_in_blocks_alone() -> None:
    trunk = VisionTransformer(img_size=32, patch_size=16, embed_dim=16, depth=2, num_heads=2, global_pool="map")
    assert [index for index, _ in attention_layers(list(trunk.blocks))] == [0, 1]


def test_what_cannot_be_measured_is_said(
    analyze: Command, clip_run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.jpg").write_text("no image")
    for run, images, message in (
        (clip_run, tmp_path / "nowhere", "nowhere: images: no such folder"),
        (clip_run, tmp_path / "empty", "empty: images: found none, expected files ending in .jpg"),
        (clip_run, tmp_path / "texts", "a.jpg: image: not an image file"),
        (tmp_path / "empty", photos, "config.json: no such file"),
    ):
        with pytest.raises(SystemExit):
            analyze("attention-distance", run, "--images", images, "--out", tmp_path / "reach.png")
        assert message in capsys.readouterr().err
    assert not (tmp_path / "reach.png").exists()
