import io
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from mobileclip_dense.artifact.files import read_json, staged_file, write_json
from mobileclip_dense.artifact.images import load_image
from mobileclip_dense.artifact.metrics import SegmentationScore, depth_errors
from mobileclip_dense.artifact.outputs import SCENES, staged_folder
from mobileclip_dense.artifact.palette import class_palette, colour_depth, overlay_classes
from mobileclip_dense.artifact.preprocess import resize_image, unit_planes
from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.run.folder import open_run


def test_miou_on_a_case_worked_out_by_hand() -> None:
    truth = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 255, 1], [2, 2, 255, 1]], np.uint8)
    found = np.array([[0, 0, 1, 1], [0, 1, 1, 1], [2, 2, 0, 0], [2, 0, 0, 1]], np.uint8)
    score = SegmentationScore(num_classes=4)
    score.add(found, truth)
    # class 0: 3 of 4+2, class 1: 5 of 6+1, class 2: 3 of 4, class 3 nowhere and left out
    np.testing.assert_allclose(score.iou()[:3], [3 / 6, 5 / 7, 3 / 4])
    assert np.isnan(score.iou()[3])
    assert score.miou_percent() == pytest.approx((3 / 6 + 5 / 7 + 3 / 4) / 3 * 100)


def test_depth_errors_on_a_case_worked_out_by_hand() -> None:
    truth = np.array([[2.0, 4.0], [0.0, 12.0]])
    errors = depth_errors(np.array([[1.0, 4.4], [3.0, 3.0]]), truth, 10.0)
    assert errors["rmse"] == pytest.approx(((1 + 0.16) / 2) ** 0.5)
    assert errors["abs_rel"] == pytest.approx((0.5 + 0.1) / 2)
    assert errors["d1"] == 0.5


def test_depth_without_readings_is_an_error() -> None:
    with pytest.raises(ValueError, match="no pixel with a reading"):
        depth_errors(np.ones((2, 2)), np.zeros((2, 2)), 10.0)


def test_preprocessing_is_what_torchvision_computes() -> None:
    import torch
    from torchvision.transforms import v2

    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    reference = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    found = unit_planes(resize_image(image, 32, 48)[None])
    expected = reference(v2.functional.resize(Image.fromarray(image), [32, 48]))
    np.testing.assert_allclose(found[0], expected.numpy(), atol=1e-6)


@pytest.mark.parametrize("orientation", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
def test_exif_orientation_is_applied_as_pillow_does(tmp_path, orientation: int) -> None:  # type: ignore[no-untyped-def]
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(load_image(tmp_path / "turned.png"), expected)
    assert expected.shape == ((30, 20, 3) if 5 <= orientation <= 8 else (20, 30, 3))


def test_a_photograph_is_turned_whatever_its_camera_wrote_beside(tmp_path) -> None:  # type: ignore[no-untyped-def]
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "the maker"
    data = io.BytesIO()
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(data, "JPEG", exif=exif)
    # The maker's name as a rational number, which a name is not: type 2, text, becomes type 5.
    wrong = data.getvalue().replace(b"\x01\x0f\x00\x02\x00\x00\x00\x0a", b"\x01\x0f\x00\x05\x00\x00\x00\x01")
    assert wrong != data.getvalue()
    (tmp_path / "odd.jpg").write_bytes(wrong)
    assert load_image(tmp_path / "odd.jpg").shape == (30, 20, 3)


def test_palette_colours_are_distinct_and_do_not_depend_on_their_number() -> None:
    assert len(set(class_palette(150))) == 150
    assert class_palette(150)[:14] == class_palette(14)


def test_an_overlay_leaves_ignored_pixels_alone() -> None:
    image = np.full((2, 2, 3), 100, np.uint8)
    drawn = overlay_classes(image, np.array([[0, 255], [1, 255]]), class_palette(2))
    assert (drawn[:, 1] == 100).all()
    assert (drawn[:, 0] != 100).any()


def test_depth_colours_run_from_red_to_blue_and_black_is_no_reading() -> None:
    near, far, none = colour_depth(np.array([[1.0, 10.0, 0.0]]), 1.0, 10.0)[0]
    assert near[0] > near[2]
    assert far[2] > far[0]
    assert not none.any()


def test_a_name_that_is_not_utf_8_is_written_and_read_back(tmp_path) -> None:  # type: ignore[no-untyped-def]
    value = {"name": "caf\udce9 \\ 犬.jpg"}  # as Python reads a file name of Latin-1
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value
    assert "犬" in (tmp_path / "x.json").read_text(encoding="utf-8")


def test_an_interrupted_writer_leaves_nothing(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "file").write_text("good")
    with pytest.raises(RuntimeError), staged_file(tmp_path / "file") as staging:
        staging.write_text("half")
        raise RuntimeError
    with pytest.raises(RuntimeError), staged_folder(tmp_path / "folder", SCENES, inputs={}) as staging:
        (staging / "part").write_text("half")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "good"


@pytest.fixture
def small_disk() -> Iterator[None]:
    """Limit files to 4 kB; the system then reports errors like those of a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_disk")
def test_a_full_disk_is_named_with_the_file_and_leaves_nothing(tmp_path: Path) -> None:
    message = r"{}: cannot be written: File too large \([0-9,.]+ MB free{}\); free some space, or write to another disk"
    with pytest.raises(OSError, match=message.format("report.json", "")):
        write_json(tmp_path / "report.json", ["x" * 5000])
    with (
        pytest.raises(OSError, match=message.format("weights", ", 1.0 MB needed")),
        staged_file(tmp_path / "weights", 1_000_000) as staging,
    ):
        staging.write_bytes(bytes(1_000_000))
    with (
        pytest.raises(OSError, match=message.format("scenes", "")),
        staged_folder(tmp_path / "scenes", SCENES, inputs={}) as staging,
    ):
        (staging / "x.jpg").write_bytes(bytes(5000))
    with (
        pytest.raises(OSError, match=message.format("run", "")),
        open_run(FinetuneConfig(data=tmp_path, out=tmp_path / "run"), {}),
        (tmp_path / "run" / "metrics.jsonl").open("w") as file,
    ):
        file.write("x" * 5000)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
