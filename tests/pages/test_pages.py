"""HTML pages and terminal tables: text is escaped, images are inline, tables fit the terminal."""

from mobileclip_dense.pages.html_page import render_image, render_page, render_table
from mobileclip_dense.pages.text_table import format_table


def test_a_page_escapes_text_and_loads_nothing() -> None:
    parts = [render_table(["run", "<b>"], [["a&b", "1"]]), render_image(b"\x89PNG...", "it's")]
    page = render_page("<title>", parts, style="p { color: red }")
    assert "<title>&lt;title&gt;</title>" in page
    assert "<th>&lt;b&gt;</th>" in page and "<td>a&amp;b</td>" in page and "p { color: red }" in page
    assert "alt='it&#x27;s' src='data:image/png;base64," in page
    assert "http" not in page


def test_a_row_of_one_cell_is_a_heading_across_the_table() -> None:
    table = render_table(["", "a", "b"], [["Length"], ["words", "1", "2"]])
    assert "<tr class='group'><th colspan='3'>Length</th></tr>" in table


def test_images_say_what_they_are() -> None:
    assert "data:image/jpeg;" in render_image(b"\xff\xd8\xff", "photo")
    assert "data:image/svg+xml;" in render_image(b"<?xml version='1.0'?><svg/>", "plot")


def test_numbers_are_aligned_to_the_right_and_names_to_the_left() -> None:
    assert format_table(["run", "mIoU"], [["nano", "4.2"], ["a", "44.0"]]).splitlines() == [
        "run   mIoU",
        "----  ----",
        "nano   4.2",
        "a     44.0",
    ]


def test_long_cells_wrap_between_words_until_the_table_fits() -> None:
    rows = [["artifact-with-a-name", "one two three four five six seven eight", "7"]]
    lines = format_table(["artifact", "what", "n"], rows, max_width=40).splitlines()
    assert max(map(len, lines)) <= 40
    assert "artifact-with-a-name" in lines[2] and "eight" in "\n".join(lines)
    assert all(word in "\n".join(lines).split() for word in rows[0][1].split())


def test_words_that_do_not_fit_keep_their_ends() -> None:
    name = "mci2-fpn_lite-pruned-segment-camvid-256x320-fp32.onnx"
    lines = format_table(["artifact", "MB"], [[name, "99.10"]], max_width=30).splitlines()
    assert lines[2] == "mci2-fpn_li…0-fp32.onnx  99.10"


def test_a_row_of_one_cell_stands_above_indented_rows() -> None:
    rows = [["nano-segment"], ["fp32.onnx", "3.5"], ["int8.onnx", "11.9"]]
    assert format_table(["export", "MB"], rows).splitlines() == [
        "export         MB",
        "-----------  ----",
        "nano-segment",
        "  fp32.onnx   3.5",
        "  int8.onnx  11.9",
    ]


def test_a_table_without_rows_is_its_header() -> None:
    assert format_table(["run", "mIoU"], []) == "run  mIoU\n---  ----"
