"""What is drawn around the maps."""

from collections.abc import Iterator

import numpy as np
import pytest
from PIL import ImageFont

import mobileclip_dense.apps.drawing
from mobileclip_dense.apps.drawing import add_bars, add_depth_scale, add_legend


@pytest.fixture()
def no_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(mobileclip_dense.apps.drawing, "_FONTS", ("no such font.ttf",))
    mobileclip_dense.apps.drawing._font_path.cache_clear()
    yield
    mobileclip_dense.apps.drawing._font_path.cache_clear()


def test_without_a_font_of_the_system_bars_are_drawn_with_pillows(no_fonts: None) -> None:
    picture = np.full((40, 200, 3), 90, np.uint8)
    drawn = add_bars(picture, [("a cube", 0.7), ("a name that is much too long to fit beside its bar", 0.3)])
    np.testing.assert_array_equal(drawn[:40], picture)
    assert drawn.shape[0] > 40
    assert len(np.unique(drawn[40:])) > 10  # letters, not only bars
    assert mobileclip_dense.apps.drawing._font(12).getname() == ImageFont.load_default(size=12).getname()  # type: ignore[union-attr]


def test_a_name_of_several_lines_is_drawn_on_one() -> None:
    picture = np.full((40, 300, 3), 90, np.uint8)
    for name in ("two\nlines", "two\r\n\tlines", "two\u2028lines"):
        np.testing.assert_array_equal(add_bars(picture, [(name, 0.7)]), add_bars(picture, [("two lines", 0.7)]))
        drawn = add_legend(picture, [(name, (1, 2, 3), 0.7)])
        np.testing.assert_array_equal(drawn, add_legend(picture, [("two lines", (1, 2, 3), 0.7)]))


def test_a_name_of_100_000_letters_is_cut_where_a_long_one_is() -> None:
    picture = np.full((40, 300, 3), 90, np.uint8)
    name = "a long name " * 10_000
    np.testing.assert_array_equal(add_bars(picture, [(name, 0.7)]), add_bars(picture, [(name[:200], 0.7)]))


@pytest.mark.parametrize("shape", [(1, 65_000), (65_000, 1)])
def test_lines_of_one_pixel_are_drawn_on(shape: tuple[int, int]) -> None:
    picture = np.full((*shape, 3), 90, np.uint8)
    for drawn in (add_bars(picture, [("a cube", 0.7)]), add_legend(picture, [("a cube", (1, 2, 3), 0.7)]),
                  add_depth_scale(picture, 1, 2)):  # fmt: skip
        np.testing.assert_array_equal(drawn[: shape[0], : shape[1]], picture)
        assert shape[0] < drawn.shape[0] < shape[0] + 100
        assert drawn.shape[1] == max(160, shape[1])
