"""Videos that are cut short, damaged or of other kinds, and videos that could not be written."""

import json
import resource
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from mobileclip_dense.apps.container import count_mp4_frames, counts_frames, measure_missing_bytes
from mobileclip_dense.apps.segment import SegmentConfig, segment
from mobileclip_dense.apps.video import staged_video
from tests.conftest import Line

NUM_FRAMES = 40


def noise(index: int, height: int = 48, width: int = 64) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_video(path: Path, codec: str) -> bytes:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 25, (64, 48))
    assert writer.isOpened()
    for index in range(NUM_FRAMES):
        writer.write(noise(index))
    writer.release()
    return path.read_bytes()


def count_given(path: Path) -> tuple[int, int]:
    """Frames that OpenCV announces, and that it gives."""
    capture = cv2.VideoCapture(str(path))
    given = 0
    while capture.grab():
        given += 1
    return int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), given


def segment_video(line: Line, path: Path) -> str:
    """What is said to have failed; empty if nothing did."""
    config = SegmentConfig(artifact=line.artifact("segment", "fp32.onnx"), inputs=(str(path),), threads=1, force=True,
                           out=path.parent / "out")  # fmt: skip
    try:
        segment(config)
    except ValueError:
        (failure,) = json.loads((config.out / "segment-summary.json").read_text())["failures"]
        return str(failure["error"])
    return ""


def halve(data: bytes) -> bytes:
    return data[: len(data) // 2]


def blank_the_end(data: bytes) -> bytes:
    """Zeros in the second half of an MP4 file's frames; its index is whole."""
    end = data.index(b"moov") - 4
    return data[: end // 2] + bytes(end - end // 2) + data[end:]


def trim(data: bytes) -> bytes:
    """An edit list of MP4 that leaves out the second half, as phones trim."""
    at = data.index(b"elst") + 12
    (duration,) = struct.unpack(">I", data[at : at + 4])
    return data[:at] + struct.pack(">I", duration // 2) + data[at + 4 :]


def empty_frames(data: bytes) -> bytes:
    """Every second frame of AVI has no bytes, in its header and in the index: the one before it is shown again."""
    changed = bytearray(data)
    for index in range(1, NUM_FRAMES, 2):
        at = data.index(b"idx1") + 8 + 16 * index
        (offset,) = struct.unpack("<I", data[at + 8 : at + 12])
        header = data.index(b"movi") + offset
        changed[at + 12 : at + 16] = changed[header + 4 : header + 8] = bytes(4)
    return bytes(changed)


def lengthen(data: bytes) -> bytes:
    """A duration of Matroska ten times as long, as that of a longer sound track."""
    at = data.index(b"\x44\x89\x88") + 3
    (duration,) = struct.unpack(">d", data[at : at + 8])
    return data[:at] + struct.pack(">d", duration * 10) + data[at + 8 :]


def go_live(data: bytes) -> bytes:
    """A segment of Matroska of unknown length, cut in the middle: a recording that was stopped."""
    at = data.index(b"\x18\x53\x80\x67") + 4
    return halve(data[:at] + b"\x01" + b"\xff" * 7 + data[at + 8 :])


@pytest.mark.parametrize(
    ("name", "codec", "damage", "words"),
    [
        ("cut.avi", "MJPG", halve, "the file is cut short"),
        ("cut.mkv", "mp4v", halve, "the file is cut short"),
        ("blank.mp4", "mp4v", blank_the_end, f"expected {NUM_FRAMES}, which the file announces: it is damaged"),
    ],
)
def test_a_video_that_ends_early_fails_and_what_it_gave_is_kept(
    line: Line, tmp_path: Path, name: str, codec: str, damage: Callable[[bytes], bytes], words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(damage(write_video(path, codec)))
    given = count_given(path)[1]
    assert 0 < given < NUM_FRAMES
    failure = segment_video(line, path)
    assert f"{name}: video: gave {given} frames and then no more" in failure
    assert words in failure
    assert count_given(path.parent / "out" / f"{path.stem}-segment.mp4") == (given, given)


@pytest.mark.parametrize(
    ("name", "codec", "change"),
    [
        ("whole.mp4", "mp4v", None),
        ("whole.mov", "mp4v", None),
        ("whole.avi", "MJPG", None),
        ("whole.mkv", "mp4v", None),
        ("trimmed.mp4", "mp4v", trim),
        ("empty-frames.avi", "MJPG", empty_frames),
        ("long-sound.mkv", "mp4v", lengthen),
        ("live.mkv", "mp4v", go_live),
    ],
)
def test_a_whole_video_passes_where_its_announced_number_is_an_estimate_too(
    line: Line, tmp_path: Path, name: str, codec: str, change: Callable[[bytes], bytes] | None
) -> None:
    path = tmp_path / name
    data = write_video(path, codec)
    if change is not None:
        path.write_bytes(change(data))
        announced, given = count_given(path)
        assert 0 < given != announced
    assert segment_video(line, path) == ""


def test_any_bytes_may_stand_in_a_container(tmp_path: Path) -> None:
    """300 damaged files: none raises, and none but whole ones are said to hold all frames."""
    whole = [write_video(tmp_path / name, codec) for name, codec in (("a.mp4", "mp4v"), ("a.avi", "MJPG"),
                                                                    ("a.mkv", "mp4v"))]  # fmt: skip
    rng = np.random.default_rng(0)
    path = tmp_path / "damaged"
    for index in range(300):
        data = np.frombuffer(whole[index % 3], np.uint8).copy()
        end = int(rng.choice([len(data), rng.integers(0, 100), rng.integers(0, len(data))]))
        start = int(rng.choice([0, max(0, end - 2000)]))  # headers, or the index at the end
        places = rng.integers(start, max(start + 1, end), 20)
        data[np.minimum(places, len(data) - 1)] = rng.integers(0, 256, 20)
        path.write_bytes(data[:end].tobytes())
        assert measure_missing_bytes(path) >= 0
        assert counts_frames(path) in (True, False)
        assert count_mp4_frames(path) >= 0


@contextmanager
def file_limit(num_bytes: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("num_bytes", [100, 30_000])
def test_a_video_that_could_not_be_written_is_an_error_and_leaves_nothing(tmp_path: Path, num_bytes: int) -> None:
    """A limit of file sizes stands for a full disk: OpenCV reports neither."""
    path = tmp_path / "out" / "film.mp4"
    with (
        file_limit(num_bytes),
        pytest.raises(OSError, match=r"film\.mp4: found 0 frames in the file after writing 40; the disk is full"),
        staged_video(path, 25) as append,
    ):
        for index in range(NUM_FRAMES):
            append(noise(index))
    assert list(path.parent.iterdir()) == []


def test_in_a_batch_a_video_that_could_not_be_written_fails_alone(line: Line, tmp_path: Path) -> None:
    write_video(tmp_path / "film.avi", "MJPG")
    with file_limit(30_000):
        failure = segment_video(line, tmp_path / "film.avi")
    assert "film-segment.mp4: found 0 frames in the file after writing 40" in failure
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["segment-summary.json"]


def test_a_frame_of_another_size_is_refused_and_not_left_out(tmp_path: Path) -> None:
    with (
        pytest.raises(
            ValueError, match=r"frame 1: found height, width, channels \(48, 66, 3\), expected \(48, 64, 3\)"
        ),
        staged_video(tmp_path / "film.mp4", 25) as append,
    ):
        append(noise(0))
        append(noise(1, 48, 66))
    assert list(tmp_path.iterdir()) == []
