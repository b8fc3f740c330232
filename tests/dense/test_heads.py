"""The heads: outputs, cost, fused form and losses, with random weights and without training."""

import dataclasses
from pathlib import Path

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import mobileclip_dense.dense  # noqa: F401
from mobileclip_dense.config import FinetuneConfig, Task
from mobileclip_dense.dense.model import build_model, model_config
from mobileclip_dense.deploy.networks import DensePredictor
from mobileclip_dense.deploy.pooling import AveragePooling, make_pooling_exact
from mobileclip_dense.models.prune import count_macs, count_params
from mobileclip_dense.models.reparam import fuse_model, unfused_modules
from tests.models.test_reparam import randomize, relative_error

WITH_HEADS: list[tuple[Task, str]] = [
    ("segment", "fpn_lite"), ("segment", "upernet"), ("segment", "linear"), ("depth", "fpn_lite"), ("depth", "deconv"),
    ("depth", "linear"),
]  # fmt: skip


def config(task: Task, head: str, encoder: str = "nano", head_channels: int = 32) -> FinetuneConfig:
    return FinetuneConfig(data=Path("data"), out=Path("out"), task=task, head=head, encoder=encoder,
                          head_channels=head_channels)  # fmt: skip


def on_meta(task: Task, head: str, encoder: str, head_channels: int, num_classes: int = 150) -> nn.Module:
    with torch.device("meta"):
        return build_model(config(task, head, encoder, head_channels), num_classes)


@torch.no_grad()
def scores(model: nn.Module, image: torch.Tensor) -> torch.Tensor:
    """The output of a depth head before the sigmoid, which would hide errors."""
    prediction = model.decode_head(model.extract_feat(image))
    return torch.logit(prediction / 10) if hasattr(model.decode_head, "max_depth") else prediction


@pytest.mark.parametrize(("task", "head"), WITH_HEADS)
def test_a_model_with_any_head_fuses_exactly(task: Task, head: str) -> None:
    model = randomize(build_model(config(task, head), 5))
    model.decode_head.apply(amplify)
    for dtype, bound in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
        trained = model.to(dtype)
        fused = fuse_model(trained)
        image = torch.rand(1, 3, 64, 96, dtype=dtype)
        found, expected = scores(fused, image), scores(trained, image)
        assert float(expected.std()) > 0.01
        assert relative_error(found, expected) <= bound
        assert not unfused_modules(fused)


def amplify(layer: nn.Module) -> None:
    """Initial weights of 0.001 in the deconvolutions leave nothing to compare."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(layer.weight, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("encoder", ["mci0", "mci1", "mci2"])
def test_the_lite_head_costs_at_most_15_percent_of_the_encoder(encoder: str) -> None:
    model = on_meta("segment", "fpn_lite", encoder, FinetuneConfig.head_channels)
    of_head = head_macs(model.decode_head)
    of_encoder = count_macs(model, (512, 512)) - of_head
    with torch.device("meta"):
        settings = model_config(config("depth", "fpn_lite", encoder, FinetuneConfig.head_channels), 1)
        of_depth = head_macs(MODELS.build(settings["decode_head"]))
    assert 0 < of_depth < of_head <= 0.15 * of_encoder


@torch.no_grad()
def head_macs(head: nn.Module) -> int:
    pyramid = [torch.empty(1, c, 128 // 2**i, 128 // 2**i, device="meta") for i, c in enumerate(head.in_channels)]
    with FlopCounterMode(display=False) as counter:
        head.eval()(pyramid)
    return counter.get_total_flops() // 2


def test_the_lite_head_has_nothing_at_stride_4_but_lateral_and_classifier() -> None:
    head = build_model(config("segment", "fpn_lite"), 5).decode_head.eval()
    seen: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for layer in head.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda m, _, out: seen.append((m.kernel_size, tuple(out.shape[1:]))))
    with torch.no_grad():
        found = head([torch.rand(1, c, 32 // 2**i, 32 // 2**i) for i, c in enumerate((16, 32, 96, 192))])
    assert found.shape == (1, 5, 32, 32)
    assert [entry for entry in seen if entry[1][1:] == (32, 32)] == [((1, 1), (32, 32, 32)), ((1, 1), (5, 32, 32))]
    assert sorted(shape[1] for kernel, shape in seen if kernel == (3, 3)) == [4, 8, 16]


def test_the_sizes_of_the_models_are_the_known_ones() -> None:
    """Swin-L's published size includes its auxiliary head and four output norms of 6 k parameters in all."""
    upernet = on_meta("segment", "upernet", "mci2", 512)
    deployed = count_params(upernet) - count_params(upernet.auxiliary_head)
    assert deployed / 1e6 == pytest.approx(65.5, abs=0.1)
    swin = count_params(on_meta("segment", "upernet", "swin_l", 512))
    assert swin / 1e6 == pytest.approx(234.0, abs=0.1)


def test_a_linear_probe_is_a_linear_layer_on_the_joined_upsampled_pyramid() -> None:
    head = randomize(build_model(config("segment", "linear"), 5)).decode_head.double()
    pyramid = [torch.randn(2, c, 32 // 2**i, 24 // 2**i, dtype=torch.float64) for i, c in enumerate((16, 32, 96, 192))]
    normalized = []
    for level, probe in zip(pyramid, head.probes, strict=True):
        norm = probe[0]
        assert norm.weight is None and norm.bias is None
        mean, variance = (v[None, :, None, None] for v in (norm.running_mean, norm.running_var))
        normalized.append((level - mean) / torch.sqrt(variance + norm.eps))
    joined = torch.cat(
        [nn.functional.interpolate(level, (32, 24), mode="bilinear", align_corners=False) for level in normalized], 1
    )
    weight = torch.cat([probe[1].weight[:, :, 0, 0] for probe in head.probes], dim=1)
    expected = torch.einsum("oc,bchw->bohw", weight, joined) + head.probes[0][1].bias[:, None, None]
    with torch.no_grad():
        assert relative_error(head(pyramid), expected) <= 1e-12
    assert weight.shape == (5, 336)
    assert len(list(head.parameters())) == 5  # four kernels and one bias: nothing else to train


def test_the_deconvolution_head_doubles_three_times_to_stride_4_and_predicts_at_full_size() -> None:
    model = build_model(config("depth", "deconv"), 1).eval()
    deconvolutions = [m for m in model.decode_head.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [(m.in_channels, m.out_channels, m.stride) for m in deconvolutions] == [
        (192, 32, (2, 2)), (32, 32, (2, 2)), (32, 32, (2, 2))
    ]  # fmt: skip
    with torch.no_grad():
        depth = model.decode_head(model.extract_feat(torch.rand(1, 3, 64, 96)))
    assert depth.shape == (1, 1, 64, 96)
    assert bool(((depth > 0) & (depth < 10)).all())


def test_only_upernet_has_an_auxiliary_head_and_no_export_has_it() -> None:
    settings = model_config(config("segment", "upernet"), 5)
    auxiliary = settings["auxiliary_head"]
    assert (auxiliary["in_index"], auxiliary["in_channels"], auxiliary["channels"]) == (2, 96, 256)
    assert auxiliary["loss_decode"]["loss_weight"] == 0.4
    assert "auxiliary_head" not in model_config(config("segment", "fpn_lite"), 5)
    model = build_model(config("segment", "upernet"), 5)
    exported = DensePredictor(model, model.backbone.encoder.normalization, "segment")
    assert count_params(exported) == count_params(model) - count_params(model.auxiliary_head)


def test_a_detector_is_not_built_here() -> None:
    with pytest.raises(ValueError, match="found detect, expected segment or depth"):
        model_config(config("detect", "mask_rcnn"), 5)


@pytest.mark.parametrize("size", [(2, 3), (5, 16), (16, 16), (7, 1)])
def test_pooling_by_products_is_adaptive_pooling(size: tuple[int, int]) -> None:
    model = nn.Sequential(*(nn.Sequential(nn.AdaptiveAvgPool2d(bins)) for bins in (1, 2, 3, 6)))
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = [pool(x) for pool in model]
    make_pooling_exact(model)
    for pool, truth in zip(model, expected, strict=True):
        assert isinstance(pool[0], AveragePooling)
        assert torch.allclose(pool(x), truth, rtol=1e-12, atol=1e-14)


def samples(truth: torch.Tensor) -> list[SegDataSample]:
    return [SegDataSample(gt_depth_map=PixelData(data=image)) for image in truth]


def silog(found: torch.Tensor, truth: torch.Tensor) -> float:
    """The root of equation 4 of Eigen et al. 2014, with lambda = 0.5, over the pixels of one image with a reading."""
    valid = (truth > 0) & (truth <= 10)
    d = truth[valid].log() - found[valid].log()
    return float(torch.sqrt((d**2).mean() - 0.5 * d.mean() ** 2))


def test_the_depth_loss_is_scale_invariant_and_of_images_with_readings_only() -> None:
    head = build_model(config("depth", "fpn_lite"), 1).decode_head
    generator = torch.Generator().manual_seed(0)
    found = torch.rand(3, 1, 8, 12, dtype=torch.float64, generator=generator) * 8 + 0.5
    truth = torch.rand(3, 1, 8, 12, dtype=torch.float64, generator=generator) * 11 + 0.5  # some beyond 10 m
    truth[:, :, :3] = 0
    truth[1] = 0
    assert bool((truth > 10).any())
    loss = head.loss_by_feat(found, samples(truth))["loss_silog"]
    assert float(loss) == pytest.approx((silog(found[0], truth[0]) + silog(found[2], truth[2])) / 2, rel=1e-5)


@pytest.mark.parametrize("reading", [0.0, 25.0])
def test_images_without_any_reading_teach_nothing_and_break_nothing(reading: float) -> None:
    """The root of 0 in the loss must give no NaN, neither alone nor beside an image with readings."""
    head = build_model(config("depth", "fpn_lite"), 1).decode_head
    found = torch.full((2, 1, 4, 4), 3.0, requires_grad=True)
    truth = torch.full((2, 1, 4, 4), reading)
    loss = head.loss_by_feat(found, samples(truth))["loss_silog"]
    loss.backward()
    assert float(loss) == 0
    assert torch.equal(found.grad, torch.zeros_like(found))
    truth[1] = torch.rand(1, 4, 4) + 1
    found.grad = None
    head.loss_by_feat(found, samples(truth))["loss_silog"].backward()
    assert torch.equal(found.grad[0], torch.zeros(1, 4, 4))
    assert bool(torch.isfinite(found.grad[1]).all()) and float(found.grad[1].abs().sum()) > 0


@pytest.mark.parametrize("task", ["segment", "depth"])
def test_of_a_linear_probe_of_a_vit_nothing_below_the_head_trains(task: Task) -> None:
    """ViTDet's pyramid has random weights: frozen, it is noise; trained, the head is no longer a linear probe."""
    settings = dataclasses.replace(config(task, "linear", "vit_b16_clip"), frozen_stages=4)
    with torch.device("meta"):
        model = build_model(settings, 5)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"decode_head.probes.0.1.weight", "decode_head.probes.0.1.bias"}
    assert model.decode_head.probes[0][1].in_channels == 768


def test_the_deconvolutions_of_a_vit_stand_on_its_own_last_map() -> None:
    model = on_meta("depth", "deconv", "vit_b16", 32)
    upsamplings = [m for m in model.decode_head.decoder.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert upsamplings[0].in_channels == 768
    assert len(upsamplings) == 2  # from stride 16 to 4
