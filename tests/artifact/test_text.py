"""Text files of users are read the same way, whichever editor wrote them."""

from pathlib import Path

import pytest

from mobileclip_dense.artifact.text import read_lines


@pytest.mark.parametrize("start", ["", "\ufeff"], ids=["plain", "byte order mark"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CR LF"])
def test_lines_are_the_same_with_a_byte_order_mark_and_windows_line_ends(tmp_path: Path, start: str, end: str) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes((start + end.join(["cat", "", "sea\u2028lion", "form\ffeed", "next\x85line"]) + end * 2).encode())
    assert read_lines(path, "names") == ["cat", "", "sea\u2028lion", "form\ffeed", "next\x85line"]


@pytest.mark.parametrize(("encoding", "found"), [("utf-16", "UTF-16"), ("utf-16-be", "0x"), ("latin-1", "0xe9")])
def test_another_encoding_is_refused_by_name(tmp_path: Path, encoding: str, found: str) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes("café\nüber".encode(encoding))
    with pytest.raises(ValueError, match=f"list: found .*{found}.*save it again as UTF-8"):
        read_lines(path, "list")


def test_utf_16_without_a_mark_is_not_taken_for_text(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes("cat\ndog\n".encode("utf-16-le"))
    with pytest.raises(ValueError, match=r"names\.txt: list: found NUL bytes \(as in UTF-16\)"):
        read_lines(tmp_path / "names.txt", "list")


def test_files_that_were_put_together_with_their_marks_read_as_one(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\ufeffcat\n\ufeffdog\r\n", encoding="utf-8", newline="")
    assert read_lines(tmp_path / "names.txt", "list") == ["cat", "dog"]
    (tmp_path / "names.txt").write_text("cat\r\n", encoding="utf-8", newline="")
    assert read_lines(tmp_path / "names.txt", "list") == ["cat"]


def test_line_ends_of_cr_alone_are_not_read_as_one_line(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes(b"cat\rdog\r")
    with pytest.raises(ValueError, match=r"names\.txt: list: found line ends of CR only, expected LF or CR LF"):
        read_lines(tmp_path / "names.txt", "list")


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.txt: list: no such file"):
        read_lines(tmp_path / "none.txt", "list")
