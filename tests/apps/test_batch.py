"""The segmentation and depth demos on photographs, videos and a camera: what they write and what they refuse."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from math import inf, nan
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import mobileclip_dense.apps.batch
from benchmarks.demo_throughput import ThroughputConfig, measure_throughput
from mobileclip_dense.apps.depth import DepthConfig, depth, in_millimetres
from mobileclip_dense.apps.inputs import find_inputs
from mobileclip_dense.apps.segment import SegmentConfig, segment
from mobileclip_dense.apps.video import open_frames, staged_video
from mobileclip_dense.artifact import images
from mobileclip_dense.artifact.artifact import artifact_sha256
from mobileclip_dense.artifact.images import load_image
from mobileclip_dense.artifact.palette import overlay_classes
from mobileclip_dense.runtime.accuracy import predict_at
from mobileclip_dense.runtime.onnx_model import OnnxModel, load_onnx_artifact
from tests.conftest import Line, run_module


def config(line: Line, out: Path, *inputs: object, **settings: Any) -> SegmentConfig:
    return SegmentConfig(artifact=line.artifact("segment", "fp32.onnx"), inputs=tuple(map(str, inputs)), out=out,
                         threads=1, **settings)  # fmt: skip


def depth_config(line: Line, out: Path, *inputs: object, **settings: Any) -> DepthConfig:
    return DepthConfig(artifact=line.artifact("depth", "fp32.onnx"), inputs=tuple(map(str, inputs)), out=out,
                       **{"threads": 1, **settings})  # fmt: skip


@pytest.fixture()
def photo(line: Line, tmp_path: Path) -> Path:
    """A photograph wider than high, that lies on its side until its EXIF orientation is applied."""
    upright = Image.open(line.photo).resize((210, 90))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    return tmp_path / "turned.jpg"


def test_segment_writes_what_the_model_says_at_the_photographs_resolution(
    line: Line, photo: Path, tmp_path: Path
) -> None:
    record = segment(config(line, tmp_path / "out", photo))
    artifact, model = load_onnx_artifact(line.artifact("segment", "fp32.onnx"))
    image = load_image(photo)
    assert image.shape == (90, 210, 3)
    expected = predict_at(model, "class_map", image, artifact.input_size_px)
    with Image.open(tmp_path / "out" / "turned-classes.png") as classes:
        assert (classes.mode, classes.size) == ("L", (210, 90))
        np.testing.assert_array_equal(np.asarray(classes), expected)
    drawn = np.asarray(Image.open(tmp_path / "out" / "turned-segment.png"))
    np.testing.assert_array_equal(
        drawn[:90, :210], overlay_classes(image, expected.astype(int), list(artifact.palette))
    )
    assert drawn.shape[0] > 90  # the legend
    (found,) = record["inputs"]
    shares = {artifact.class_names[i]: float((expected == i).mean()) for i in np.unique(expected)}
    assert found["class_shares"] == pytest.approx(shares)
    assert sum(found["class_shares"].values()) == pytest.approx(1)


def test_depth_writes_colours_millimetres_and_points(line: Line, photo: Path, tmp_path: Path) -> None:
    record = depth(depth_config(line, tmp_path / "out", photo, ply=True, field_of_view=60.0))
    artifact, model = load_onnx_artifact(line.artifact("depth", "fp32.onnx"))
    expected = predict_at(model, "depth_m", load_image(photo), artifact.input_size_px).astype(np.float64)
    with Image.open(tmp_path / "out" / "turned-depth-mm.png") as png:
        assert (png.mode, png.size) == ("I;16", (210, 90))
        np.testing.assert_allclose(np.asarray(png) / 1000, expected, atol=0.00051)
    with Image.open(tmp_path / "out" / "turned-depth.png") as drawn:
        assert drawn.width == 2 * 210  # photograph and depth side by side
        assert drawn.height > 90  # and the scale below
    cloud = (tmp_path / "out" / "turned-depth.ply").read_bytes()
    assert b"element vertex 18900\n" in cloud
    (found,) = record["inputs"]
    assert expected.min() <= found["depth"]["near_m"] < found["depth"]["median_m"] < found["depth"]["far_m"]
    assert found["files"] == ["turned-depth.png", "turned-depth-mm.png", "turned-depth.ply"]


def test_millimetres_are_rounded_and_end_where_16_bits_end() -> None:
    np.testing.assert_array_equal(in_millimetres(np.float32([0, 1.2346, 65.535, 80])), [0, 1235, 65535, 65535])


def test_the_summary_says_what_ran_and_how_long_it_took(line: Line, tmp_path: Path) -> None:
    folder = line.scenes / "ade" / "images" / "validation"
    (tmp_path / "bad.jpg").write_text("no image")
    with pytest.raises(ValueError, match="1 of 7 inputs could not be used"):
        segment(config(line, tmp_path / "out", folder, tmp_path / "bad.jpg"))
    summary = json.loads((tmp_path / "out" / "segment-summary.json").read_text())
    artifact = line.artifact("segment", "fp32.onnx")
    assert (summary["artifact"], summary["artifact_sha256"]) == (artifact.name, artifact_sha256(artifact))
    assert (summary["provider"], summary["threads"], summary["num_frames"]) == ("CPUExecutionProvider", 1, 6)
    assert summary["versions"].keys() == {"onnxruntime", "numpy", "pillow", "python"}
    assert list(summary["latency_ms"]) == ["preprocessing", "model", "postprocessing"]
    for stage, times in summary["latency_ms"].items():
        own = [one["latency_ms"][stage] for one in summary["inputs"]]
        assert 0 < times["p50"] <= times["p90"]
        assert times["p50"] == pytest.approx(np.median(own))
    assert 0 < summary["model_share_percent"] < 100
    for one in summary["inputs"]:
        assert all((tmp_path / "out" / name).is_file() for name in one["files"])
    (failure,) = summary["failures"]
    assert failure["input"] == str(tmp_path / "bad.jpg")
    assert "bad.jpg: image: not an image file" in failure["error"]


def test_on_the_command_line_bad_inputs_are_named_and_the_others_are_drawn(line: Line, tmp_path: Path) -> None:
    whole = line.photo.read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    Image.new("L", (40, 30)).save(tmp_path / "gif.png", "GIF")
    bad = [tmp_path / name for name in ("gone.jpg", "cut.jpg", "gif.png", "*.tif")]
    done = run_module("mobileclip_dense", "segment", line.artifact("segment", "fp32.onnx"), *bad, line.photo, "--out",
                      tmp_path / "out", check=False)  # fmt: skip
    assert done.returncode == 1
    for words in ("gone.jpg: no such file", "cut.jpg: image: cannot be decoded", "gif.png: image: found GIF",
                  "*.tif: no image or video matches", "error: 4 of 5 inputs could not be used"):  # fmt: skip
        assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert "postprocessing" in done.stdout
    assert (tmp_path / "out" / "00000007-segment.png").exists()
    assert not (tmp_path / "out" / "cut-segment.png").exists()


def test_a_picture_too_large_to_be_honest_is_a_bad_input(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    with pytest.raises(ValueError, match="1 of 1 inputs could not be used"):
        segment(config(line, tmp_path / "out", line.photo))
    summary = json.loads((tmp_path / "out" / "segment-summary.json").read_text())
    assert "00000007.jpg: image: found 64x64, expected at most 1,000 pixels" in summary["failures"][0]["error"]


def test_nothing_is_replaced_without_force_and_then_nothing_is_done(line: Line, tmp_path: Path) -> None:
    (tmp_path / "00000015-classes.png").write_text("mine")
    folder = line.scenes / "ade" / "images" / "validation"
    with pytest.raises(FileExistsError, match=r"00000015-classes\.png: already exists; .*--force"):
        segment(config(line, tmp_path, folder))
    assert [path.name for path in tmp_path.iterdir()] == ["00000015-classes.png"]
    segment(config(line, tmp_path, folder, force=True))
    assert (tmp_path / "00000015-classes.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(FileExistsError, match="and 12 other results already exist"):
        segment(config(line, tmp_path, folder))


@pytest.mark.parametrize(
    ("argument", "words"), [("empty", "found no images in this folder"), ("", "INPUT: found none")]
)
def test_without_any_usable_input_nothing_is_written(line: Line, tmp_path: Path, argument: str, words: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=words):
        segment(config(line, tmp_path / "out", *([tmp_path / argument] if argument else [])))
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_place_of_the_folder_of_results_is_named(line: Line, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ValueError, match=r"--out: found .*out, which is a file"):
        segment(config(line, tmp_path / "out", line.photo))
    assert (tmp_path / "out").read_text() == "mine"


def test_an_artifact_for_another_task_or_runtime_is_refused(line: Line, tmp_path: Path) -> None:
    for kind, message in (("fp32.onnx", "task: found depth, expected segment; try `mobileclip-dense depth`"),
                          ("fp16.coreml", "runtime: found coreml, which runs on darwin only")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            segment(SegmentConfig(artifact=line.artifact("depth", kind), inputs=(str(line.photo),), out=tmp_path))


def test_an_unknown_provider_is_refused_with_those_that_are_there(line: Line, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--provider: found warp, expected one of .*cpu"):
        segment(config(line, tmp_path, line.photo, provider="warp"))
    segment(config(line, tmp_path, line.photo, provider="CPUExecutionProvider"))
    with pytest.raises(ValueError, match="does not start on this machine"):
        OnnxModel(line.artifact("segment", "fp32.onnx") / "model.onnx", 1, "CUDAExecutionProvider")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"ply": True}, "--ply: found neither, expected --ply with one of"),
        ({"ply": True, "field_of_view": 60.0, "intrinsics": (1, 1, 0, 0)}, "found --intrinsics and --field-of-view"),
        ({"field_of_view": 60.0}, "found no --ply but --field-of-view"),
        ({"ply": True, "field_of_view": 180.0}, "--field-of-view: found 180"),
        (
            {"ply": True, "intrinsics": (0.0, 1.0, 0.0, 0.0)},
            "--intrinsics: found 0.0 1.0 0.0 0.0, expected focal lengths",
        ),
        ({"ply": True, "field_of_view": nan}, "--field-of-view: found nan"),
        ({"ply": True, "field_of_view": 1e-300}, "--field-of-view: found 1e-300"),
        ({"ply": True, "intrinsics": (1.0, inf, 0.0, 0.0)}, "--intrinsics: found 1.0 inf"),
        ({"ply": True, "intrinsics": (1.0, -2.0, 0.0, 0.0)}, "--intrinsics: found 1.0 -2.0"),
        ({"ply": True, "intrinsics": (1.0, 1.0, nan, 0.0)}, "--intrinsics: found 1.0 1.0 nan"),
        ({"ply": True, "intrinsics": (1.0, 1.0, 0.0, -1e300)}, r"--intrinsics: found 1.0 1.0 0.0 -1e\+300"),
        ({"range_m": (3.0, 1.0)}, "--range-m: found 3.0 1.0"),
        ({"range_m": (0.0, inf)}, "--range-m: found 0.0 inf"),
        ({"range_m": (nan, 1.0)}, "--range-m: found nan 1.0"),
        ({"range_m": (-1.0, 1.0)}, "--range-m: found -1.0 1.0"),
        ({"range_m": (0.0, 1e300)}, r"--range-m: found 0.0 1e\+300"),
        ({"max_frames": 0}, "--max-frames: found 0"),
        ({"max_frames": 10**30}, "--max-frames: found 1000"),
        ({"threads": 0}, "--threads: found 0"),
        ({"threads": 5000}, "--threads: found 5000, expected at most"),
    ],
)
def test_settings_that_make_no_sense_are_refused(line: Line, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        depth_config(line, Path("out"), line.photo, **settings)


def test_no_result_replaces_an_input(line: Line, tmp_path: Path) -> None:
    for name in ("a.jpg", "a-depth.png"):
        (tmp_path / name).write_bytes(line.photo.read_bytes())
    with pytest.raises(FileExistsError, match=r"a-depth\.png: is an input, and would be replaced by a result"):
        depth(depth_config(line, tmp_path, tmp_path / "a.jpg", tmp_path / "a-depth.png", force=True))
    assert (tmp_path / "a-depth.png").read_bytes() == line.photo.read_bytes()


def frames(count: int, height: int = 48, width: int = 63) -> list[npt.NDArray[np.uint8]]:
    """Plain frames, each of another grey and with a red left half."""
    made = [np.full((height, width, 3), 40 + 40 * index, np.uint8) for index in range(count)]
    for frame in made:
        frame[:, : width // 2] = (200, 30, 30)
    return made


def write_video(path: Path, pictures: list[npt.NDArray[np.uint8]]) -> None:
    height, width = pictures[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (width, height))
    for picture in pictures:
        writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    writer.release()


def read_video(path: Path) -> tuple[list[npt.NDArray[np.uint8]], float]:
    (source,), _ = find_inputs([str(path)], path.parent / "out")
    with open_frames(source, None) as opened:
        return list(opened.frames), opened.rate


def test_a_video_gives_a_video_of_as_many_frames_in_the_same_order(line: Line, tmp_path: Path) -> None:
    write_video(tmp_path / "film.avi", frames(5))
    record = segment(config(line, tmp_path / "out", tmp_path / "film.avi", line.photo))
    drawn, rate = read_video(tmp_path / "out" / "film-segment.mp4")
    assert (len(drawn), rate) == (5, 10)
    assert len({frame.shape for frame in drawn}) == 1
    assert drawn[0].shape[0] > 48  # the legend
    brightness = [float(frame[:48, 40:60].mean()) for frame in drawn]
    assert brightness == sorted(brightness)
    assert drawn[0][10, 10, 0] > drawn[0][10, 10, 2]  # red is not blue
    film = next(one for one in record["inputs"] if one["input"].endswith("film.avi"))
    assert film["num_frames"] == 5
    assert film["files"] == ["film-segment.mp4"]
    assert sum(film["class_shares"].values()) == pytest.approx(1)
    assert record["num_frames"] == 6


def test_a_depth_video_keeps_one_scale_and_ends_where_it_is_told(line: Line, tmp_path: Path) -> None:
    write_video(tmp_path / "film.avi", frames(5))
    record = depth(depth_config(line, tmp_path / "out", tmp_path / "film.avi", max_frames=3))
    drawn, _ = read_video(tmp_path / "out" / "film-depth.mp4")
    assert len(drawn) == 3 == record["num_frames"]
    np.testing.assert_allclose(drawn[0][50:].astype(int), drawn[2][50:], atol=40)  # the same scale, but for MPEG
    with pytest.raises(ValueError, match=r"--ply: found .*film\.avi, expected photographs only"):
        depth(depth_config(line, tmp_path / "out", tmp_path / "film.avi", ply=True, field_of_view=60.0))


def test_a_video_without_frames_and_a_camera_that_is_not_there_are_named(
    line: Line, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.avi").write_text("no video")
    cv2.VideoWriter(str(tmp_path / "none.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48)).release()
    videos = [tmp_path / name for name in ("empty.mp4", "text.avi", "none.avi")]
    with pytest.raises(ValueError, match="4 of 5 inputs could not be used"):
        segment(config(line, tmp_path / "out", *videos, "camera:99", line.photo))
    said = [text for text in capfd.readouterr().err.splitlines() if text.startswith("error")]
    assert [text.replace(f"{tmp_path}/", "").split("; ")[0] for text in said] == [
        "error: empty.mp4: video: cannot be opened",
        "error: text.avi: video: cannot be opened",
        "error: none.avi: video: not one frame can be read from it",
        "error: camera:99: camera: none answers",
    ]
    assert [path.name for path in (tmp_path / "out").iterdir() if "none" in path.name] == []


class FakeCamera:
    """A camera that never ends."""

    def __init__(self, source: int):
        assert source == 0

    def isOpened(self) -> bool:
        return True

    def read(self) -> tuple[bool, npt.NDArray[np.uint8]]:
        return True, frames(1)[0]

    def get(self, _: int) -> float:
        return 0.0

    def release(self) -> None:
        pass


def test_a_camera_runs_until_q_or_control_c_or_the_last_frame(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def show_until(number: int, ending: object) -> Iterator[bool]:
        for _ in range(number - 1):
            yield True
        if isinstance(ending, BaseException):
            raise ending
        yield False

    for name, shown, settings, expected in (
        ("q", show_until(3, None), {}, 3),
        ("control-c", show_until(3, KeyboardInterrupt()), {}, 3),
        ("last", show_until(9, None), {"max_frames": 2}, 2),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(cv2, "VideoCapture", FakeCamera)
            patched.setattr(mobileclip_dense.apps.batch, "show", lambda *_, shown=shown: next(shown))
            record = segment(config(line, tmp_path / name, "camera:0", **settings))
        assert record["num_frames"] == expected
        assert expected <= len(read_video(tmp_path / name / "camera-0-segment.mp4")[0]) <= expected + 2


def test_a_camera_that_stops_giving_frames_is_named_and_what_it_gave_is_kept(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unplugged(FakeCamera):
        left = 3

        def read(self) -> tuple[bool, npt.NDArray[np.uint8]]:
            self.left -= 1
            return self.left >= 0, frames(1)[0]

    monkeypatch.setattr(cv2, "VideoCapture", Unplugged)
    monkeypatch.setattr(mobileclip_dense.apps.batch, "show", lambda *_: True)
    with pytest.raises(ValueError, match="1 of 1 inputs could not be used"):
        segment(config(line, tmp_path, "camera:0"))
    summary = json.loads((tmp_path / "segment-summary.json").read_text())
    assert "gave 3 frames and then no more; was it unplugged?" in summary["failures"][0]["error"]
    monkeypatch.undo()
    assert len(read_video(tmp_path / "camera-0-segment.mp4")[0]) == 3


def test_a_video_may_have_any_rate(tmp_path: Path) -> None:
    for rate, expected in ((23.976, 23.976), (77.1234, 77.1), (239.5208, 239.5), (998.123, 998.1)):
        path = tmp_path / f"{rate}.mp4"
        with staged_video(path, rate) as append:
            for frame in frames(2):
                append(frame)
        drawn, found = read_video(path)
        assert (len(drawn), found) == (2, pytest.approx(expected))


def test_without_opencv_a_video_is_refused_and_photographs_are_drawn(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "film.avi", frames(2))
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ValueError, match="1 of 2 inputs could not be used"):
        segment(config(line, tmp_path / "out", tmp_path / "film.avi", line.photo))
    summary = json.loads((tmp_path / "out" / "segment-summary.json").read_text())
    assert "videos and cameras: needs the package cv2" in summary["failures"][0]["error"]
    assert (tmp_path / "out" / "00000007-segment.png").exists()


def test_a_full_disk_leaves_no_half_written_picture(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mobileclip_dense.apps.batch, "save_png", full)
    with pytest.raises(ValueError, match="1 of 1 inputs could not be used"):
        segment(config(line, tmp_path / "out", line.photo))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["segment-summary.json"]


def test_an_input_fails_alone_whatever_is_raised(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "film.avi", frames(2))
    for name in ("a", "b", "c", "d"):
        shutil.copy(line.photo, tmp_path / f"{name}.jpg")

    def load(path: Path) -> npt.NDArray[np.uint8]:
        if path.name == "a.jpg":
            raise RuntimeError("Invalid argument: decoder")
        if path.name == "b.jpg":
            raise MemoryError
        return load_image(path)

    def save(picture: npt.NDArray[np.uint8], path: Path) -> None:
        if path.name.startswith(".c-"):
            raise TypeError("cannot handle this")
        save_png(picture, path)

    def open_damaged(*_: object) -> None:
        raise cv2.error("the decoder gave up")

    save_png = mobileclip_dense.apps.batch.save_png
    monkeypatch.setattr(mobileclip_dense.apps.batch, "load_image", load)
    monkeypatch.setattr(mobileclip_dense.apps.batch, "save_png", save)
    monkeypatch.setattr(mobileclip_dense.apps.batch, "open_frames", open_damaged)
    with pytest.raises(ValueError, match="4 of 5 inputs could not be used"):
        segment(config(line, tmp_path / "out", *(tmp_path / name for name in ("a.jpg", "b.jpg", "film.avi", "c.jpg",
                                                                             "d.jpg"))))  # fmt: skip
    assert [text.replace(f"{tmp_path}/", "") for text in capsys.readouterr().err.splitlines() if "error" in text] == [
        "error: a.jpg: RuntimeError: Invalid argument: decoder",
        "error: b.jpg: needs more memory than this machine gives",
        "error: c.jpg: TypeError: cannot handle this",
        "error: film.avi: error: the decoder gave up",
    ]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "d-classes.png", "d-segment.png", "segment-summary.json",
    ]  # fmt: skip


def test_odd_file_names_are_used_or_fail_alone(line: Line, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("two\nlines.jpg", os.fsdecode(b"caf\xe9.jpg"), "-dash.jpg", "[1].jpg", "long" * 61 + ".jpg")
    (tmp_path / "in").mkdir()
    for name in names:
        shutil.copy(line.photo, tmp_path / "in" / name)
    with pytest.raises(ValueError, match="1 of 5 inputs could not be used"):
        segment(config(line, tmp_path / os.fsdecode(b"\xff"), tmp_path / "in"))
    said = capsys.readouterr()
    assert "two\\nlines.jpg" in said.out
    assert "caf\\udce9.jpg" in said.out
    assert "File name too long" in said.err
    for name in names[:-1]:
        assert (tmp_path / os.fsdecode(b"\xff") / f"{name[:-4]}-segment.png").is_file()


@pytest.mark.parametrize("size", [(65_000, 1), (1, 65_000)])
def test_a_line_of_one_pixel_is_segmented_and_measured(line: Line, tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, (200, 30, 30)).save(tmp_path / "line.png")
    Image.new("RGB", (65_536, 1)).save(tmp_path / "no.png")
    with pytest.raises(ValueError, match="1 of 2 inputs could not be used"):
        segment(config(line, tmp_path / "out", tmp_path / "line.png", tmp_path / "no.png"))
    (failure,) = json.loads((tmp_path / "out" / "segment-summary.json").read_text())["failures"]
    assert "no.png: image: found 65536x1 pixels, expected at most 65535 on a side" in failure["error"]
    depth(depth_config(line, tmp_path / "out", tmp_path / "line.png"))
    for name in ("line-classes.png", "line-depth-mm.png"):
        with Image.open(tmp_path / "out" / name) as written:
            assert written.size == size


def test_throughput_compares_the_demo_with_the_model(line: Line, tmp_path: Path) -> None:
    result = measure_throughput(ThroughputConfig(artifact=line.artifact("depth", "fp32.onnx"), images=3, threads=1,
                                                 runs=3, out=tmp_path / "result.json"))  # fmt: skip
    assert json.loads((tmp_path / "result.json").read_text()) == result
    assert (result["num_frames"], result["photographs"]) == (3, "generated, 640x480 JPEG")
    share = result["latency_ms"]["model"]["mean"] / result["wall_ms_per_frame"] * 100
    assert result["model_share_percent"] == pytest.approx(share)
    alone = result["model_alone_ms"]
    assert alone["num_runs"] == 3
    assert result["model_alone_share_percent"] == pytest.approx(alone["mean"] / result["wall_ms_per_frame"] * 100)
    shutil.copytree(line.scenes / "ade" / "images" / "validation", tmp_path / "own")
    own = measure_throughput(ThroughputConfig(artifact=line.artifact("segment", "fp32.onnx"), folder=tmp_path / "own",
                                              threads=1, runs=3, out=tmp_path / "own.json"))  # fmt: skip
    assert (own["num_frames"], own["photographs"], own["task"]) == (6, "own", "segment")
