"""What is drawn around the maps."""

from collections.abc import Iterator

import numpy as np
import pytest
from PIL import ImageFont

import apps.drawing
from apps.drawing import add_bars


@pytest.fixture()
def no_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(apps.drawing, "_FONTS", ("no such font.ttf",))
    apps.drawing._font_path.cache_clear()
    yield
    apps.drawing._font_path.cache_clear()


def test_without_a_font_of_the_system_bars_are_drawn_with_pillows(no_fonts: None) -> None:
    picture = np.full((40, 200, 3), 90, np.uint8)
    drawn = add_bars(picture, [("a cube", 0.7), ("a name that is much too long to fit beside its bar", 0.3)])
    np.testing.assert_array_equal(drawn[:40], picture)
    assert drawn.shape[0] > 40
    assert len(np.unique(drawn[40:])) > 10  # letters, not only bars
    assert apps.drawing._font(12).getname() == ImageFont.load_default(size=12).getname()  # type: ignore[union-attr]
