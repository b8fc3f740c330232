from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobileclip_dense.analysis.features import component_colours, principal_components
from tests.analysis.conftest import Command


def test_components_are_those_of_the_covariance() -> None:
    features = np.random.default_rng(0).standard_normal((5, 4, 6)) * np.array([5, 4, 3, 2, 1])[:, None, None]
    found = principal_components(features)
    samples = features.reshape(5, -1).T
    variances, axes = np.linalg.eigh(np.cov(samples.T))
    axes = axes[:, ::-1][:, :3] * np.sign(axes[:, ::-1][:, :3][np.abs(axes[:, ::-1][:, :3]).argmax(axis=0), range(3)])
    expected = (samples - samples.mean(axis=0)) @ axes
    np.testing.assert_allclose(found.scores.reshape(-1, 3), expected, atol=1e-10)
    np.testing.assert_allclose(found.explained, (variances / variances.sum())[::-1][:3])


def test_signs_do_not_depend_on_the_order_of_places() -> None:
    features = np.random.default_rng(1).standard_normal((6, 3, 7))
    turned = principal_components(features[:, ::-1, ::-1]).scores[::-1, ::-1]
    np.testing.assert_allclose(turned, principal_components(features).scores, atol=1e-10)


def test_a_map_without_three_components_has_grey_for_the_others() -> None:
    found = principal_components(np.arange(6.0).reshape(1, 2, 3))
    assert found.explained.tolist() == pytest.approx([1, 0, 0])
    colours = component_colours(found.scores)
    assert colours[0, 0].tolist() == [0, 0.5, 0.5]
    assert colours[1, 2].tolist() == [1, 0.5, 0.5]
    flat = principal_components(np.full((4, 2, 2), 7.0))
    assert flat.explained.tolist() == [0, 0, 0]
    assert (component_colours(flat.scores) == 0.5).all()


def test_the_command_draws_every_map(
    analyze: Command, segment_run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "features.png"
    analyze("features", segment_run, photos / "0.png", "--out", out)
    lines = capsys.readouterr().out.splitlines()
    for number, shape in enumerate(
        ("16 channels, 16x24", "32 channels, 8x12", "96 channels, 4x6", "192 channels, 2x3")
    ):
        assert lines[number].startswith(f"stage {number + 1}: {shape}")
    with Image.open(out) as picture:
        assert picture.width == 975
    with pytest.raises(SystemExit):
        analyze("features", segment_run, photos / "0.png", "--out", out)
    assert "already exists" in capsys.readouterr().err


def test_a_lone_vit_shows_some_of_its_blocks(
    analyze: Command, vit_run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    analyze("features", vit_run, photos / "0.png", "--out", tmp_path / "features.png")
    names = [line.split(";")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("block")]
    assert names == [f"block {number}: 32 channels, 4x4" for number in (1, 2, 3)]


def test_what_is_no_image_or_no_run_is_said(
    analyze: Command, clip_run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "text.jpg").write_text("no image")
    for run, image, message in (
        (clip_run, photos / "text.jpg", "text.jpg: image: not an image file"),
        (clip_run, photos / "nowhere.jpg", "nowhere.jpg: image: no such file"),
        (tmp_path / "nowhere", photos / "0.png", "nowhere: run: no such folder"),
    ):
        with pytest.raises(SystemExit):
            analyze("features", run, image, "--out", tmp_path / "features.png")
        assert message in capsys.readouterr().err
    assert not (tmp_path / "features.png").exists()
