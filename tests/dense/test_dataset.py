"""The data loaders: the model gets the right pairs and labels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.registry import DefaultScope
from mmseg.registry import DATASETS
from mmseg.utils import register_all_modules

import mobileclip_dense.dense  # noqa: F401
from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.data.labelled.annotations import read_class_labels, read_depth_m
from mobileclip_dense.data.labelled.camvid import CAMVID_CLASSES
from mobileclip_dense.data.labelled.labelled_set import LabelledSet
from mobileclip_dense.data.labelled.pairs import Pair
from mobileclip_dense.data.labelled.scan import check_set
from mobileclip_dense.dense.training.pipelines import dataloader_config
from tests.data.labelled import depth, depth_folder, mask, own_folder, photograph, save, settings


@pytest.fixture(autouse=True)
def scope() -> None:
    register_all_modules()
    assert DefaultScope.get_current_instance() is not None


def load(config: FinetuneConfig, found: LabelledSet, *, training: bool) -> Any:
    return DATASETS.build(dataloader_config(config, found, training=training)["dataset"])


def truth(item: dict[str, Any]) -> np.ndarray:
    return item["data_samples"].gt_sem_seg.data[0].numpy()


def test_only_the_pairs_of_the_set_are_loaded(tmp_path: Path) -> None:
    root = own_folder(tmp_path / "own")
    (root / "images" / "training" / "0.jpg").rename(root / "images" / "training" / "0.JPEG")
    (root / "annotations" / "training" / "1.png").unlink()
    config = settings(root, skip_bad=True)
    found = check_set(config)
    data = load(config, found, training=True)
    names = [Path(data[index]["data_samples"].img_path).name for index in range(len(data))]
    assert names == ["0.JPEG", "2.jpg"]
    assert data[0]["inputs"].shape[0] == 3


@pytest.mark.parametrize(("reduce", "ignored", "stored", "expected"),
                         [(True, 255, (0, 1, 150, 255), (255, 0, 149, 255)),
                          (False, 11, (0, 10, 11, 255), (0, 10, 255, 255))])  # fmt: skip
def test_labels_are_those_of_the_reader(
    tmp_path: Path, reduce: bool, ignored: int, stored: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    pair = Pair(photograph(tmp_path / "a.jpg"), mask(tmp_path / "a.png", *stored))
    names = tuple(map(str, range(150))) if reduce else CAMVID_CLASSES
    found = LabelledSet(layout="", train=(), val=(pair,), class_names=names, reduce_zero_label=reduce,
                        ignored_label=ignored)  # fmt: skip
    data = load(settings(tmp_path), found, training=False)
    np.testing.assert_array_equal(truth(data[0])[0, :4], expected)
    np.testing.assert_array_equal(truth(data[0]), read_class_labels(pair.label, reduce, ignored))


@pytest.mark.parametrize("size", [(1, 1), (1, 1000), (700, 1), (3, 2000)])
def test_a_picture_of_any_shape_is_loaded_with_its_labels(tmp_path: Path, size: tuple[int, int]) -> None:
    labels = np.resize(np.array([0, 1, 2, 255], np.uint8), size)
    pair = Pair(save(tmp_path / "a.png", np.full((*size, 3), 90, np.uint8)), save(tmp_path / "b.png", labels))
    found = LabelledSet(layout="", train=(pair,), val=(pair,), class_names=("a", "b", "c"))
    held_out = load(settings(tmp_path), found, training=False)[0]
    np.testing.assert_array_equal(truth(held_out), labels)
    assert min(held_out["inputs"].shape[1:]) >= 1
    training = load(settings(tmp_path), found, training=True)
    for _ in range(5):  # mirrored or not
        trained = training[0]
        assert trained["inputs"].shape[1:] == truth(trained).shape


def test_depth_is_in_metres_and_not_rescaled(tmp_path: Path) -> None:
    root = depth_folder(tmp_path / "nyu")
    path = depth(root / "annotations" / "train" / "0.png", *range(500, 500 + 32 * 32))
    config = settings(root, task="depth", depth_units_per_m=500.0)
    found = check_set(config)
    (loaded,) = load(config, found, training=True)[0]["data_samples"].gt_depth_map.data.numpy()
    expected = read_depth_m(path, 500)
    assert loaded[0, 0] in (expected[0, 0], expected[0, -1])  # mirrored or not
    np.testing.assert_allclose(np.sort(loaded, axis=1), expected, rtol=1e-6)
    (held_out,) = load(config, found, training=False)[0]["data_samples"].gt_depth_map.data.numpy()
    np.testing.assert_allclose(held_out, read_depth_m(found.val[0].label, 500), rtol=1e-6)
