import pytest
import timm
import torch

from mobileclip_dense.models.encoders import ENCODERS, STRIDES, Encoder


@pytest.mark.parametrize("name", ["nano", "mci0", "mci1", "mci2"])
def test_the_pyramid_has_its_strides_and_channels(name: str) -> None:
    encoder = Encoder(name).eval()
    with torch.no_grad():
        maps = encoder(torch.rand(2, 3, 64, 128))
    for found, stride, channels in zip(maps, STRIDES, encoder.channels, strict=True):
        assert found.shape == (2, channels, 64 // stride, 128 // stride)


def test_parameter_counts_are_the_known_ones() -> None:
    def millions(name: str) -> float:
        return sum(p.numel() for p in Encoder(name).parameters()) / 1e6

    assert millions("nano") < 1.5
    assert millions("mci2") == pytest.approx(34.94, abs=0.01)
    assert Encoder("mci2").channels == (80, 160, 320, 640)


def test_swin_l_takes_any_size_and_returns_channels_first() -> None:
    with torch.device("meta"):
        encoder = Encoder("swin_l")
    assert encoder.channels == (192, 384, 768, 1536)
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(195, abs=1)
    assert encoder.normalization.mean == (0.485, 0.456, 0.406)


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
