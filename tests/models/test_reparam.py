"""Fused and unfused networks are equal, per block and as a whole, with random BatchNorm statistics and LayerScales."""

import pytest
import torch
from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from timm.models.fastvit import (
    AttentionBlock,
    LayerScale2d,
    MobileOneBlock,
    PatchEmbed,
    RepConditionalPosEnc,
    RepMixerBlock,
)
from timm.models.vision_transformer_hybrid import ConvStem
from torch import nn

from mobileclip_dense.models.clip import build_clip
from mobileclip_dense.models.encoders import Encoder
from mobileclip_dense.models.reparam import fuse_model, unfused_modules


def randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    """Randomize statistics. Initial ones (mean 0, variance 1, LayerScale 1e-5) would hide nearly every error."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor in (module.bias, module.running_mean):
                if tensor is not None:  # without affine part
                    tensor.data.normal_(0, 0.3, generator=generator)
            for tensor in (module.weight, module.running_var):
                if tensor is not None:
                    tensor.data.uniform_(0.5, 1.5, generator=generator)
        elif isinstance(module, LayerScale2d):
            module.gamma.data.normal_(0, 0.4, generator=generator)
    return model.eval()


def relative_error(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


BLOCKS = {
    "MobileOneBlock, identity and scale branches": lambda: MobileOneBlock(16, 16, 3, group_size=1),
    "MobileOneBlock, stride 2": lambda: MobileOneBlock(16, 32, 3, stride=2),
    "MobileOneBlock with squeeze-and-excitation": lambda: MobileOneBlock(16, 16, 3, use_se=True),
    "RepMixerBlock": lambda: RepMixerBlock(16),
    "AttentionBlock": lambda: AttentionBlock(64),
    "PatchEmbed": lambda: PatchEmbed(7, 2, 16, 32, lkc_use_act=True, use_se=True),
    "RepConditionalPosEnc": lambda: RepConditionalPosEnc(16),
    "convolutions that cut patches": lambda: ConvStem(16, 2, (8, 24), 2, (2, 1), 0, act_layer=nn.GELU),
    "mmcv ConvModule": lambda: ConvModule(16, 24, 3, padding=1, norm_cfg=dict(type="BN")),
    "mmcv DepthwiseSeparableConvModule": lambda: DepthwiseSeparableConvModule(
        16, 24, 3, padding=1, norm_cfg=dict(type="BN")
    ),
    "BatchNorm, 1x1 convolution": lambda: nn.Sequential(nn.BatchNorm2d(16, affine=False), nn.Conv2d(16, 24, 1)),
    "BatchNorm, 1x1 convolution without bias": lambda: nn.Sequential(
        nn.BatchNorm2d(16), nn.Conv2d(16, 24, 1, bias=False)
    ),
    "convolution, BatchNorm": lambda: nn.Sequential(nn.Conv2d(16, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU()),
    "deconvolution, BatchNorm": lambda: nn.Sequential(
        nn.ConvTranspose2d(16, 24, 2, stride=2, bias=False), nn.BatchNorm2d(24), nn.ReLU()
    ),
    "square deconvolution with bias, BatchNorm": lambda: nn.Sequential(
        nn.ConvTranspose2d(16, 16, 2, stride=2), nn.BatchNorm2d(16)
    ),
    "BatchNorm on both sides": lambda: nn.Sequential(
        nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16), nn.BatchNorm2d(16), nn.Conv2d(16, 8, 1), nn.BatchNorm2d(8)
    ),
}


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("name", BLOCKS)
def test_a_fused_block_computes_the_same(name: str, dtype: torch.dtype, bound: float) -> None:
    block = randomize(nn.Sequential(BLOCKS[name]())).to(dtype)
    fused = fuse_model(block)
    image = torch.randn(2, 64 if "Attention" in name else 16, 9, 9, dtype=dtype)
    with torch.no_grad():
        assert relative_error(fused(image), block(image)) <= bound
    assert not unfused_modules(fused)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("name", ["nano", "mci0", "mci1", "mci2"])
def test_a_fused_encoder_computes_the_same_pyramid(name: str, dtype: torch.dtype, bound: float) -> None:
    encoder = randomize(Encoder(name)).to(dtype)
    fused = fuse_model(encoder)
    image = torch.rand(1, 3, 64, 96, dtype=dtype)
    with torch.no_grad():
        for found, expected in zip(fused(image), encoder(image), strict=True):
            assert relative_error(found, expected) <= bound
    assert not unfused_modules(fused)
    assert unfused_modules(encoder)


def test_a_whole_clip_model_fuses_with_its_head() -> None:
    clip, tokenizer, _ = build_clip("nano", 64)
    randomize(clip)
    image, text = torch.rand(2, 3, 64, 64), tokenizer(["a red cube", "a blue cone"])
    fused = fuse_model(clip)
    with torch.no_grad():
        for found, expected in zip(fused(image, text)[:2], clip(image, text)[:2], strict=True):
            assert relative_error(found, expected) <= 1e-5
    assert not unfused_modules(fused)


def test_fusing_twice_changes_nothing() -> None:
    once = fuse_model(randomize(Encoder("nano")))
    twice = fuse_model(once)
    assert once.state_dict().keys() == twice.state_dict().keys()
    for name, tensor in once.state_dict().items():
        assert torch.equal(tensor, twice.state_dict()[name]), name


def test_fusion_leaves_the_trained_model_as_it_was() -> None:
    encoder = randomize(Encoder("nano"))
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    fuse_model(encoder)
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.state_dict().items())


def test_a_model_in_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="training mode"):
        fuse_model(Encoder("nano").train())


@pytest.mark.parametrize(
    "behind",
    [nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 1, groups=2), nn.ConvTranspose2d(16, 16, 2, stride=2)],
)
def test_a_norm_that_cannot_be_folded_exactly_stays_and_is_named(behind: nn.Module) -> None:
    block = randomize(nn.Sequential(nn.BatchNorm2d(16), behind))
    image, fused = torch.randn(1, 16, 5, 5), fuse_model(block)
    with torch.no_grad():
        assert torch.equal(fused(image), block(image))
    assert unfused_modules(fused) == ["0"]


def test_a_module_whose_norm_comes_first_is_refused() -> None:
    block = ConvModule(16, 16, 3, padding=1, norm_cfg=dict(type="BN"), order=("norm", "conv", "act")).eval()
    with pytest.raises(ValueError, match="order"):
        fuse_model(nn.Sequential(block).eval())
