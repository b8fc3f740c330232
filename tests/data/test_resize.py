import numpy as np
import pytest
from PIL import Image

from mobileclip_dense.data.captioned import resize
from mobileclip_dense.data.captioned.resize import resize_bicubic


def assert_equals_pillow(height: int, width: int, size: int, rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(resize_bicubic(image, size), expected, err_msg=f"{height}x{width} to {size}")


def test_the_resize_equals_pillows_bit_for_bit() -> None:
    rng = np.random.default_rng(0)
    for height, width in rng.integers(1, 120, (300, 2)):
        assert_equals_pillow(int(height), int(width), int(rng.choice([8, 24, 48])), rng)
    for height, width in ((1, 1), (48, 48), (48, 90), (90, 48), (1, 300), (300, 1), (700, 900), (500, 300)):
        assert_equals_pillow(height, width, 48, rng)


def test_the_order_of_the_passes_changes_where_pillows_does() -> None:
    rng = np.random.default_rng(1)
    for width in (10, 24, 25, 40, 60):
        for more in (-1, 0, 1, 2):
            assert_equals_pillow(max(1, 24 + 2 * (width - 24) + more), width, 24, rng)
            assert_equals_pillow(24 + more, width, 24, rng)


@pytest.mark.parametrize("size", [(10, 3), (256, 256), (256, 700)])
def test_weights_add_up_to_one_and_lie_within_the_image(size: tuple[int, int]) -> None:
    size_out, size_in = size
    first, count, weights = resize._weights(size_in, size_out)
    assert (first >= 0).all()
    assert (first + count <= size_in).all()
    np.testing.assert_allclose(weights.sum(axis=1) / 2**22, 1, atol=1e-5)
