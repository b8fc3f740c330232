"""Metadata of video containers: announced length, number of frames, and whether that number is exact."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_UNKNOWN_RIFF_SIZES = (0, 0xFFFFFFFF)  # written by a program that did not finish, or that could not seek
_SLACK = 8  # bytes; some programs include the AVI header in the size
_ROUNDING_S = 0.002  # an edit list uses the time unit of the movie, often milliseconds
_Boxes = dict[bytes, tuple[int, int]]  # by kind: start of the contents, end
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def measure_missing_bytes(path: Path) -> int:
    """Number of bytes that an MP4, MOV, AVI, MKV or WebM file announces but does not hold; above 0 if it was truncated.

    0 if the file does not announce its length (a live recording), or has another format.
    """
    length = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(12)
        if start[:4] == b"RIFF":
            size = struct.unpack("<I", start[4:8])[0]
            end = 0 if size in _UNKNOWN_RIFF_SIZES else 8 + size - _SLACK
        elif start[:4] == _EBML:
            end = _segment_end(file)
        else:
            end = max((box_end for _, _, box_end in _boxes(file, 0, length)), default=0)
    return max(0, end - length)


def counts_frames(path: Path) -> bool:
    """Whether OpenCV's number of frames is exact.

    It is for MP4 and MOV, unless an edit list skips frames or the file is fragmented, and for AVI, unless it holds
    empty frames. Other containers store no number, and FFmpeg estimates it from the duration.
    """
    length = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(12)
        if start[:4] == b"RIFF":
            return not _has_empty_frames(file, length)
        if start[:4] == _EBML:
            return False
        boxes = _boxes_by_kind(file, (0, length))
        if b"moov" not in boxes or b"moof" in boxes:
            return False
        return not any(_leaves_frames_out(file, track) for track in _video_tracks(file, boxes[b"moov"]))


def count_mp4_frames(path: Path) -> int:
    """Number of frames in the index of an MP4 file; 0 if there is no index because its writer did not finish."""
    with path.open("rb") as file:
        top = _boxes_by_kind(file, (0, path.stat().st_size))
        for track in _video_tracks(file, top.get(b"moov", (0, 0))):
            media = _boxes_by_kind(file, _boxes_by_kind(file, track[b"mdia"]).get(b"minf", (0, 0)))
            table = _boxes_by_kind(file, media.get(b"stbl", (0, 0)))
            if b"stsz" in table:
                file.seek(table[b"stsz"][0] + 8)
                return int.from_bytes(file.read(4), "big")
    return 0


def _boxes(file: BinaryIO, begin: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start of the contents and end of the boxes of ISO 14496-12 in a range of a file."""
    while begin + 8 <= end:
        file.seek(begin)
        header = file.read(16)
        if len(header) < 8:
            return  # the range ends behind the file
        size, kind = struct.unpack(">I4s", header[:8])
        if not kind.isalnum():
            return  # padding, or no such file
        contents = begin + 8
        if size == 1 and len(header) == 16:
            size, contents = struct.unpack(">Q", header[8:])[0], begin + 16
        if size == 0:
            size = end - begin
        if size < contents - begin:
            return
        yield kind, contents, begin + size
        begin += size


def _segment_end(file: BinaryIO) -> int:
    """Where the segment of a Matroska file ends, RFC 9559; 0 where it does not say."""
    size, width = _vint(file, 4)
    position = 4 + width + size
    file.seek(position)
    if file.read(4) != _SEGMENT:
        return 0
    size, width = _vint(file, position + 4)
    is_unknown = size == (1 << 7 * width) - 1
    return 0 if is_unknown else position + 4 + width + size


def _vint(file: BinaryIO, at: int) -> tuple[int, int]:
    """A number of variable width, RFC 8794, and its width in bytes."""
    file.seek(at)
    data = file.read(8).ljust(8, b"\0")
    width = 9 - data[0].bit_length()
    return int.from_bytes(data[:width], "big") & ((1 << 7 * width) - 1), width


def _boxes_by_kind(file: BinaryIO, span: tuple[int, int]) -> _Boxes:
    return {kind: (begin, end) for kind, begin, end in _boxes(file, *span)}


def _video_tracks(file: BinaryIO, movie: tuple[int, int]) -> Iterator[_Boxes]:
    """The boxes of each video track of a moov box, and the movie's mvhd."""
    header = {kind: (begin, end) for kind, begin, end in _boxes(file, *movie) if kind == b"mvhd"}
    for track in [(begin, end) for kind, begin, end in _boxes(file, *movie) if kind == b"trak"]:
        boxes = header | _boxes_by_kind(file, track)
        handler = _boxes_by_kind(file, boxes.get(b"mdia", (0, 0))).get(b"hdlr", (0, 0))
        file.seek(handler[0] + 8)
        if handler[1] and file.read(4) == b"vide":
            yield boxes


def _leaves_frames_out(file: BinaryIO, track: _Boxes) -> bool:
    """Whether the edit list of a track shows less than the track holds: it was trimmed."""
    edits = _boxes_by_kind(file, track.get(b"edts", (0, 0)))
    media = _boxes_by_kind(file, track[b"mdia"])
    if b"elst" not in edits or b"mdhd" not in media or b"mvhd" not in track:
        return False
    per_second, _ = _duration(file, track[b"mvhd"][0])
    held_per_second, held = _duration(file, media[b"mdhd"][0])
    shown_s = _shown(file, edits[b"elst"][0]) / max(1, per_second)
    return shown_s < held / max(1, held_per_second) - _ROUNDING_S


def _duration(file: BinaryIO, begin: int) -> tuple[int, int]:
    """Units of time in a second, and the duration in them, of an mvhd or mdhd box."""
    file.seek(begin)
    contents = file.read(32).ljust(32, b"\0")
    layout = ">20xIQ" if contents[0] == 1 else ">12xII12x"
    per_second, duration = struct.unpack(layout, contents)
    return per_second, duration


def _shown(file: BinaryIO, begin: int) -> int:
    """Sum of the durations of an elst box, in units of the movie; pauses before the track are not counted."""
    file.seek(begin)
    version, count = struct.unpack(">B3xI", file.read(8).ljust(8, b"\0"))
    entry = struct.Struct(">Qq4x" if version == 1 else ">Ii4x")
    data = file.read(entry.size * count)
    return sum(duration for duration, media_time in entry.iter_unpack(data[: len(data) // entry.size * entry.size])
               if media_time >= 0)  # fmt: skip


def _has_empty_frames(file: BinaryIO, length: int) -> bool:
    """Whether the index of an AVI file lists frames of no bytes, which repeat the frame before and are not given."""
    begin = 12
    while begin + 8 <= length:
        file.seek(begin)
        kind, size = struct.unpack("<4sI", file.read(8))
        if kind == b"idx1":
            entry = struct.Struct("<4s8xI")
            data = file.read(size)
            return any(name[2:] in (b"dc", b"db") and not frame
                       for name, frame in entry.iter_unpack(data[: len(data) // entry.size * entry.size]))  # fmt: skip
        begin += 8 + size + size % 2
    return False
