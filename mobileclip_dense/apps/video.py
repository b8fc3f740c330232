"""Reading and writing frames of videos and cameras with OpenCV, which is imported only when it is needed."""

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mobileclip_dense.apps.container import count_mp4_frames, counts_frames, measure_missing_bytes
from mobileclip_dense.apps.inputs import Input
from mobileclip_dense.artifact.files import staged_file
from mobileclip_dense.extras import MissingExtra, needing_extra

Frame = npt.NDArray[np.uint8]  # [H,W,3] RGB
_USUAL_RATE = 25.0  # frames per second, if a file or a camera does not report its rate


@dataclass(frozen=True, kw_only=True)
class Frames:
    """An open video or camera.

    Attributes:
        frames: uint8 [H,W,3] RGB, upright. rate: frames per second.
        num_frames: the expected number, None if unknown. is_exact: whether that number is not an estimate.
        missing_bytes: bytes that the file announces but does not hold.
    """

    frames: Iterator[Frame]
    rate: float
    num_frames: int | None
    is_exact: bool
    missing_bytes: int


@contextmanager
def open_frames(source: Input, max_frames: int | None) -> Iterator[Frames]:
    """Open a video or a camera for at most `max_frames` frames.

    Raises:
        ValueError: the file is not a video or has no frame, or there is no such camera. MissingExtra: no OpenCV.
    """
    cv2 = import_opencv()
    is_camera = source.kind == "camera"
    capture = cv2.VideoCapture(int(source.source.removeprefix("camera:")) if is_camera else source.source)
    try:
        if not capture.isOpened():
            raise ValueError(
                f"{source.source}: camera: none answers; is it plugged in, and does no other program use it?"
                if is_camera
                else f"{source.source}: video: cannot be opened; it is empty, damaged, or of a kind unknown to OpenCV"
            )
        frames = _read(cv2, capture)
        first = next(frames, None)
        if first is None:
            raise ValueError(f"{source.source}: {source.kind}: not one frame can be read from it")
        rate, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        known = int(count) if not is_camera and 0 < count < 1e9 else None
        yield Frames(
            frames=itertools.islice(itertools.chain([first], frames), max_frames),
            rate=rate if 0 < rate < 1000 else _USUAL_RATE,
            num_frames=min((number for number in (known, max_frames) if number is not None), default=None),
            is_exact=known is not None and counts_frames(Path(source.source)),
            missing_bytes=0 if is_camera else measure_missing_bytes(Path(source.source)),
        )
    finally:
        capture.release()


def _read(cv2: Any, capture: Any) -> Iterator[Frame]:
    while (read := capture.read())[0]:
        yield np.asarray(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))


@contextmanager
def staged_video(path: Path, rate: float) -> Iterator[Callable[[Frame], None]]:
    """Yield a function that appends frames of one size to an MPEG-4 file, renamed to `path` when the block succeeds.

    Args:
        rate: frames per second; rounded, because MPEG-4 divides a second into at most 65535 parts.

    Raises:
        ValueError: OpenCV cannot write MPEG-4 of this size, or a frame has another size than the first one.
        OSError: the file does not hold all frames: the disk is full, or a quota was reached. MissingExtra: no OpenCV.
    """
    cv2 = import_opencv()
    rate = round(rate, 3 if rate < 65 else 1)
    with staged_file(path) as staging:
        writers: list[Any] = []
        sizes: list[tuple[int, ...]] = []

        def append(frame: Frame) -> None:
            height, width = (side + side % 2 for side in frame.shape[:2])  # players need even sides
            if not writers:
                writers.append(cv2.VideoWriter(str(staging), cv2.VideoWriter.fourcc(*"mp4v"), rate, (width, height)))
                if not writers[0].isOpened():
                    raise ValueError(
                        f"{path}: this OpenCV cannot write MPEG-4 of {width}x{height} pixels; is there "
                        "space on the disk? Otherwise reinstall opencv-python, or scale the video down"
                    )
            sizes.append(frame.shape)
            if frame.shape != sizes[0]:  # OpenCV would silently skip it
                raise ValueError(f"{path}: frame {len(sizes) - 1}: found height, width, channels {frame.shape}, "
                                 f"expected {sizes[0]} as of the first")  # fmt: skip
            bottom, right = height - frame.shape[0], width - frame.shape[1]
            even = np.pad(frame, ((0, bottom), (0, right), (0, 0)), mode="edge")
            writers[0].write(cv2.cvtColor(even, cv2.COLOR_RGB2BGR))

        try:
            yield append
        finally:
            for writer in writers:
                writer.release()
        if writers:
            _require_whole(staging, path, len(sizes))


def _require_whole(written: Path, path: Path, num_frames: int) -> None:
    """Raise OSError if the file does not hold all its frames: OpenCV does not report failed writes."""
    with written.open("rb+") as file:
        os.fsync(file.fileno())  # some file systems report a full disk only here
    found, missing = count_mp4_frames(written), measure_missing_bytes(written)
    if found != num_frames or missing:
        raise OSError(f"{path}: found {found} frames in the file after writing {num_frames}; the disk is full, or a "
                      f"quota or a limit of file sizes was reached: make room, or choose another --out")  # fmt: skip


def show(frame: Frame, title: str) -> bool:
    """Show a frame in a window, if there is a display. Returns False when the user presses q."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return True  # without a display OpenCV ends the process
    cv2 = import_opencv()
    try:
        cv2.imshow(title, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    except cv2.error:  # built without windows
        return True
    return cv2.waitKey(1) & 0xFF != ord("q")


def import_opencv() -> Any:
    """Import OpenCV with its warnings turned off; our own errors report the same problems.

    Raises:
        MissingExtra: it is not installed. ValueError: a system library that it needs is missing.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        with needing_extra("videos and cameras", "video"):
            import cv2
    except MissingExtra:
        raise
    except ImportError as error:
        raise ValueError(f"videos and cameras: OpenCV cannot be imported ({error}); install the system library, or "
                         f"opencv-python-headless on a machine without a display") from None  # fmt: skip
    cv2.utils.logging.setLogLevel(0)
    return cv2
