import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from torchvision.transforms import InterpolationMode, RandAugment, RandomResizedCrop
from torchvision.transforms import functional as F
from torchvision.transforms.autoaugment import _apply_op

from mobileclip_dense.data.captioned.augmentation import (
    OPERATIONS,
    Augmentation,
    from_param_aug,
    read_param_aug,
    replay,
    sample_augmentation,
    sample_crop,
    to_param_aug,
)

SIGNED = {"ShearX": 0.09, "ShearY": 0.09, "TranslateX": 30.45, "TranslateY": 30.45, "Rotate": 9.0, "Brightness": 0.27,
          "Color": 0.27, "Contrast": 0.27, "Sharpness": 0.27}  # fmt: skip
CASES = [
    ("Identity", 0.0), ("Posterize", 7.0), ("Posterize", 4.0), ("Solarize", 178.5), ("Solarize", 90.0),
    ("AutoContrast", 0.0), ("Equalize", 0.0), ("Brightness", 0.9), ("Sharpness", -0.9), ("Rotate", -30.0),
    *((name, sign * value) for name, value in SIGNED.items() for sign in (1, -1)),
]  # fmt: skip


def picture(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Smooth colours with noise and less than the full range, so that histogram operations have an effect."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(20, 200, (5, 6, 3), dtype=np.uint8)).resize((width, height), Image.BICUBIC)
    return np.clip(np.asarray(coarse) + rng.normal(0, 8, (height, width, 3)), 15, 230).astype(np.uint8)


def published(image: npt.NDArray[np.uint8], augmentation: Augmentation, size: int) -> npt.NDArray[np.uint8]:
    """DataCompDR's transform: torchvision on Pillow."""
    pil = F.resized_crop(Image.fromarray(image), *augmentation.crop, [size, size], InterpolationMode.BICUBIC)
    for name, magnitude in augmentation.operations:
        pil = _apply_op(pil, name, magnitude or 0.0, interpolation=InterpolationMode.NEAREST, fill=None)
    return np.asarray(pil)


@pytest.mark.parametrize(("name", "magnitude"), CASES)
def test_every_operation_equals_torchvision_on_pillow(name: str, magnitude: float) -> None:
    image = picture(56, 56)
    augmentation = Augmentation((0, 0, 56, 56), ((name, magnitude),))
    expected = published(image, augmentation, 56)
    assert name == "Identity" or not np.array_equal(expected, image)
    np.testing.assert_array_equal(replay(image, augmentation, 56), expected)


@pytest.mark.parametrize("name", ["AutoContrast", "Equalize", "Contrast", "Sharpness"])
def test_an_even_picture_survives_operations_that_divide_by_its_spread(name: str) -> None:
    image = np.full((40, 40, 3), (0, 90, 255), np.uint8)
    augmentation = Augmentation((0, 0, 40, 40), ((name, 0.27),))
    np.testing.assert_array_equal(replay(image, augmentation, 40), published(image, augmentation, 40))


def test_whole_augmentations_equal_the_published_transform() -> None:
    rng = np.random.default_rng(1)
    for seed, (height, width) in enumerate([(90, 150), (200, 70), (64, 64), (31, 400)] * 10):
        image = picture(height, width, seed)
        augmentation = sample_augmentation(height, width, rng)
        np.testing.assert_array_equal(replay(image, augmentation, 48), published(image, augmentation, 48))


def test_sampled_operations_have_torchvisions_magnitudes() -> None:
    space = RandAugment()._augmentation_space(31, (224, 224))
    rng = np.random.default_rng(2)
    drawn = [operation for _ in range(300) for operation in sample_augmentation(50, 60, rng).operations]
    assert {name for name, _ in drawn} == set(space) == set(OPERATIONS)
    for name, magnitude in drawn:
        values, signed = space[name]
        if values.ndim == 0:
            assert magnitude is None
        else:
            assert magnitude is not None
            assert abs(magnitude) == pytest.approx(float(values[9]), abs=1e-4)
            assert signed or magnitude > 0
    signs = {name: {(magnitude or 0) > 0 for other, magnitude in drawn if other == name} for name in SIGNED}
    assert all(found == {True, False} for found in signs.values())


def test_sampled_crops_have_torchvisions_area_and_shape() -> None:
    rng = np.random.default_rng(3)
    image = Image.new("RGB", (300, 200))
    ours = np.array([sample_crop(200, 300, rng, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)) for _ in range(3000)])
    theirs = np.array([RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)])
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, 0] + ours[:, 2] <= 200).all()
    assert (ours[:, 1] + ours[:, 3] <= 300).all()
    for column in range(4):
        assert np.quantile(ours[:, column], [0.1, 0.5, 0.9]) == pytest.approx(
            np.quantile(theirs[:, column], [0.1, 0.5, 0.9]), abs=10
        )


@pytest.mark.parametrize(("height", "width"), [(10, 1000), (1000, 10), (1, 1)])
def test_a_long_picture_gets_torchvisions_central_crop(height: int, width: int) -> None:
    found = sample_crop(height, width, np.random.default_rng(0), scale=(1.0, 1.0), ratio=(3 / 4, 4 / 3))
    assert found == RandomResizedCrop.get_params(Image.new("RGB", (width, height)), [1.0, 1.0], [3 / 4, 4 / 3])


def test_the_same_generator_draws_the_same_augmentation() -> None:
    first, second = (sample_augmentation(100, 120, np.random.default_rng(7)) for _ in range(2))
    assert first == second != sample_augmentation(100, 120, np.random.default_rng(8))


def test_stored_augmentations_survive_a_round_trip() -> None:
    rng = np.random.default_rng(4)
    drawn = [sample_augmentation(80, 90, rng) for _ in range(30)]
    stored = json.dumps([to_param_aug(augmentation) for augmentation in drawn])
    assert [from_param_aug(entry) for entry in read_param_aug(stored)] == drawn
    assert [from_param_aug(entry) for entry in read_param_aug(json.loads(stored))] == drawn


@pytest.mark.parametrize("operations", [[["Rotate", 9.0], [0, 0.0]], [[5, 9], ["Identity"]], [[5, 9.0], None, [0, 0]]])
def test_operations_may_be_numbers_or_names(operations: list[Any]) -> None:
    expected = Augmentation((1, 2, 30, 40), (("Rotate", 9.0), ("Identity", None)))
    assert from_param_aug([[1, 2, 30, 40], operations]) == expected


@pytest.mark.parametrize("entry", [[[1, 2, 30, 40], None], [[1, 2, 30, 40]], [[1, 2, 30, 40], []]])
def test_a_skipped_or_absent_transform_is_no_operation(entry: list[Any]) -> None:
    assert from_param_aug(entry) == Augmentation((1, 2, 30, 40), ())


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"crop": 1}, "found {'crop': 1}, expected"),
        ([[1, 2, 3], None], r"crop: found \[1, 2, 3\]"),
        ([None, None], "crop: found None"),
        ([[0, 0, 0, 5], None], r"crop: found \[0, 0, 0, 5\]"),
        ([[0, -1, 5, 5], None], r"crop: found \[0, -1, 5, 5\]"),
        ([[0, 0.5, 5, 5], None], r"crop: found \[0, 0.5, 5, 5\]"),
        ([[0, 0, 5, 5], "x"], "operations: found 'x'"),
        ([[0, 0, 5, 5], [[14, 1.0]]], "operation: found 14, expected 0 to 13"),
        ([[0, 0, 5, 5], [["Invert", 1.0]]], "operation: found 'Invert'"),
        ([[0, 0, 5, 5], [["Rotate", None]]], "Rotate: magnitude: found None"),
        ([[0, 0, 5, 5], [["Rotate", float("nan")]]], "Rotate: magnitude: found nan"),
        ([[0, 0, 5, 5], [["TranslateX", float("-inf")]]], "TranslateX: magnitude: found -inf"),
        ([[0, 0, 5, 5], [["Posterize", 0]]], "Posterize: magnitude: found 0, expected 1 to 8"),
    ],
)
def test_a_damaged_entry_is_refused_with_what_was_found(entry: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_param_aug(entry)


@pytest.mark.parametrize("value", ["not json", "3", [], None, {"a": 1}])
def test_a_damaged_list_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="param_aug: found"):
        read_param_aug(value)


def test_a_crop_outside_the_picture_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rows 5 to 45 and columns 0 to 10, expected within 40x40"):
        replay(picture(40, 40), Augmentation((5, 0, 40, 10), ()), 32)
