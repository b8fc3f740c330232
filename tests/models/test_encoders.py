import pytest
import timm
import torch

from mobileclip_dense.config.encoders import ENCODERS
from mobileclip_dense.models.encoders import Encoder
from mobileclip_dense.models.families.vit import SimpleFeaturePyramid
from tests.models.foreign import TINY


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, spec in TINY.items():
        monkeypatch.setitem(ENCODERS, name, spec)


@pytest.mark.parametrize("name", ["nano", "mci0", "mci1", "mci2", "tiny_vit", "tiny_vit_clip", "tiny_swin"])
def test_the_pyramid_has_its_strides_and_channels(name: str) -> None:
    encoder = Encoder(name).eval()
    with torch.no_grad():
        maps = encoder(torch.rand(2, 3, 64, 128))
    for found, stride, channels in zip(maps, (4, 8, 16, 32), encoder.channels, strict=True):
        assert found.shape == (2, channels, 64 // stride, 128 // stride)


@pytest.mark.parametrize(
    ("name", "trunk_millions", "millions", "channels"),
    [
        ("nano", 0.62, 0.62, (16, 32, 96, 192)),
        ("mci0", 10.74, 10.74, (64, 128, 256, 512)),
        ("mci1", 20.87, 20.87, (64, 128, 256, 512)),
        ("mci2", 34.94, 34.94, (80, 160, 320, 640)),
        ("vit_b16", 85.80, 91.36, (256,) * 4),
        ("vit_b16_clip", 85.80, 91.36, (256,) * 4),
        ("vit_b16_mci", 85.95, 91.51, (256,) * 4),
        ("swin_l", 195.20, 195.20, (192, 384, 768, 1536)),
    ],
)
def test_parameter_counts_are_the_known_ones(
    name: str, trunk_millions: float, millions: float, channels: tuple[int, ...]
) -> None:
    with torch.device("meta"):
        encoder = Encoder(name)
    assert sum(p.numel() for p in encoder.trunk.parameters()) / 1e6 == pytest.approx(trunk_millions, abs=0.1)
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)
    assert encoder.channels == channels


def test_the_simple_pyramid_starts_every_level_from_the_last_map() -> None:
    pyramid = SimpleFeaturePyramid(8)
    torch.nn.init.ones_(pyramid[3][1].weight)  # after the pooling: the sum over channels of each 2x2 maximum
    last = torch.zeros(1, 8, 4, 4)
    last[0, 2, 3, 2] = 5.0
    pooled = pyramid[3][:2](last)
    assert pooled.shape == (1, 256, 2, 2)
    assert torch.equal(pooled[0, 0], torch.tensor([[0.0, 0.0], [0.0, 5.0]]))
    found = pyramid([torch.full_like(last, torch.nan), last])
    for level, map_ in zip(found, (16, 8, 4, 2), strict=True):
        assert level.shape == (1, 256, map_, map_)
        assert torch.isfinite(level).all()
        assert level.mean(1).abs().max() < 1e-5  # the last layer norms over channels


def test_position_embeddings_follow_the_image_and_can_be_fixed_to_one_size() -> None:
    encoder = Encoder("tiny_vit").eval()
    torch.nn.init.normal_(encoder.trunk.pos_embed)
    wide, square = torch.rand(1, 3, 64, 128), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before, own = encoder(wide), encoder(square)
        encoder.trunk.pos_embed[:, 1:].copy_(encoder.trunk.pos_embed[:, 1:].flip(1))
        assert not torch.allclose(encoder(wide)[0], before[0], atol=1e-3)
        encoder.trunk.pos_embed[:, 1:].copy_(encoder.trunk.pos_embed[:, 1:].flip(1))
        encoder.fix_input_size(64, 128)
        for found, expected in zip(encoder(wide), before, strict=True):
            torch.testing.assert_close(found, expected)
        with pytest.raises(AssertionError):
            encoder(square)
        encoder.fix_input_size(64, 64)  # resampled from what was resampled: close to the first, not equal
        assert [a.shape for a in encoder(square)] == [a.shape for a in own]


@pytest.mark.parametrize("name", ["nano", "mci0"])
def test_the_attention_of_the_last_stage_is_inside_the_pyramid(name: str) -> None:
    """apple/ml-fastvit pull 4: feature indices that skipped it cost 15 mIoU."""
    encoder = Encoder(name).eval()
    attention = [module for module in encoder.modules() if type(module).__name__ == "Attention"]
    assert attention
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for module in encoder.modules():
            if type(module).__name__ == "LayerScale2d":
                module.gamma.fill_(1.0)
        before = encoder(image)
        attention[-1].proj.weight.mul_(-1)
        after = encoder(image)
    assert not torch.allclose(before[3], after[3])
    assert all(torch.equal(a, b) for a, b in zip(before[:3], after[:3], strict=True))


def test_the_pyramid_is_what_timm_computes() -> None:
    encoder = Encoder("mci0").eval()
    reference = timm.create_model("fastvit_mci0", features_only=True).eval()
    flat = {
        name.replace("stages.", "stages_", 1).replace("stem.", "stem_", 1): tensor
        for name, tensor in encoder.trunk.state_dict().items()
    }
    reference.load_state_dict(flat)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for found, expected in zip(encoder(image), reference(image), strict=True):
            torch.testing.assert_close(found, expected)


def test_an_unknown_encoder_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="found 'mci9', expected one of nano, mci0"):
        Encoder("mci9")


def test_nano_has_no_published_weights() -> None:
    with pytest.raises(ValueError, match="no published weights"):
        timm.create_model(ENCODERS["nano"].timm_name, pretrained=True)
