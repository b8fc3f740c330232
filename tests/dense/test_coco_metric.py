from pathlib import Path
from typing import Any

import pytest
import torch

from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.data.labelled.coco import CocoSet
from mobileclip_dense.data.labelled.coco_check import check_coco
from mobileclip_dense.dense.evaluation.coco_metric import CocoMetric, encode_prediction, measure_images
from tests.data.coco_folder import HEIGHT, WIDTH, annotation, write_coco

DOG, CUP = (3, 1), (90, 3)  # category and label


def coco_of(folder: Path, objects: list[dict[str, Any]]) -> CocoSet:
    root = write_coco(folder / "coco", {"train": objects, "val": objects})
    return check_coco(FinetuneConfig(data=root, out=root, task="detect", head="mask_rcnn"))


def prediction(image_id: int, *found: tuple[int, float, tuple[int, int, int, int]]) -> dict[str, Any]:
    """Rectangles of label, score and corners x, y, x, y."""
    masks = torch.zeros(len(found), HEIGHT, WIDTH, dtype=torch.bool)
    for mask, (_, _, (left, top, right, bottom)) in zip(masks, found, strict=True):
        mask[top:bottom, left:right] = True
    return {
        "image_id": image_id,
        "boxes": torch.tensor([corners for _, _, corners in found], dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor([label for label, _, _ in found], dtype=torch.int64),
        "scores": torch.tensor([score for _, score, _ in found]),
        "masks": masks,
    }


def measure(coco: CocoSet, *predictions: dict[str, Any]) -> dict[str, float]:
    metric = CocoMetric(coco)
    for sample in predictions:
        metric.process(None, [sample])
    return metric.evaluate(len(predictions))


def test_what_is_found_exactly_has_100_percent_and_sizes_without_objects_have_no_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Ids start at 0, which pycocotools treats as "not found".
    coco = coco_of(tmp_path, [annotation(0, 0, 3, [10, 5, 20, 12]), annotation(1, 1, 90, [0, 0, 50, 40])])
    figures = measure(
        coco, prediction(0, (1, 0.9, (10, 5, 30, 17))), prediction(1, (3, 0.8, (0, 0, 50, 40))), prediction(2)
    )
    expected = {"mAP", "mAP_50", "mAP_75", "mAP_small", "mAP_medium", "AR_1", "AR_10", "AR_100", "AR_small",
                "AR_medium"}  # fmt: skip
    assert figures == pytest.approx({f"{kind}_{name}": 100.0 for kind in ("bbox", "segm") for name in expected})
    assert capsys.readouterr().out == ""


def test_a_surer_false_alarm_halves_the_precision(tmp_path: Path) -> None:
    coco = coco_of(tmp_path, [annotation(1, 0, 3, [10, 5, 20, 12])])
    right, wrong = (1, 0.8, (10, 5, 30, 17)), (40, 25, 60, 37)
    figures = measure(coco, prediction(0, right, (1, 0.9, wrong)))
    assert (figures["bbox_mAP"], figures["segm_mAP"]) == pytest.approx((50, 50))  # full recall at one in two
    assert measure(coco, prediction(0, right, (1, 0.7, wrong)))["bbox_mAP"] == pytest.approx(100)
    assert measure(coco, prediction(0, right, (3, 0.9, wrong)))["bbox_mAP"] == pytest.approx(100)  # no such class here
    assert measure(coco, prediction(0, right), prediction(1, (1, 0.9, wrong)))["bbox_mAP"] == pytest.approx(50)


def test_a_box_counts_up_to_its_overlap(tmp_path: Path) -> None:
    coco = coco_of(tmp_path, [annotation(1, 0, 3, [10, 15, 50, 20])])
    figures = measure(coco, prediction(0, (1, 0.9, (10, 15, 41, 35))))  # 31 of 50 columns: IoU 0.62
    for kind in ("bbox", "segm"):
        assert figures[f"{kind}_mAP"] == pytest.approx(30)  # at .5, .55 and .6 of ten thresholds
        assert (figures[f"{kind}_mAP_50"], figures[f"{kind}_mAP_75"]) == pytest.approx((100, 0))


def test_half_the_objects_of_a_class_and_none_of_another_average(tmp_path: Path) -> None:
    coco = coco_of(tmp_path, [annotation(1, 0, 3, [0, 0, 10, 10]), annotation(2, 1, 3, [0, 0, 10, 10]),
                              annotation(3, 1, 90, [30, 0, 10, 10])])  # fmt: skip
    figures = measure(coco, prediction(0, (1, 0.9, (0, 0, 10, 10))), prediction(1))
    # COCO reads precision at 101 recalls from 0 to 1: full up to and with 0.5, which are 51, then none.
    assert figures["bbox_mAP"] == pytest.approx(100 * (51 / 101 + 0) / 2)
    assert figures["bbox_AR_100"] == pytest.approx(25)


def test_nothing_found_is_zero(tmp_path: Path) -> None:
    coco = coco_of(tmp_path, [annotation(1, 0, 3, [10, 5, 20, 12])])
    figures = measure(coco, prediction(0), prediction(1))
    assert (figures["bbox_mAP"], figures["segm_AR_100"]) == (0, 0)


def test_a_crowd_is_neither_missed_nor_a_false_alarm(tmp_path: Path) -> None:
    crowd = annotation(2, 0, 3, [30, 0, 30, 40], iscrowd=1)
    coco = coco_of(tmp_path, [annotation(1, 0, 3, [0, 0, 10, 10]), crowd])
    in_crowd = [(1, 0.95, (left, 10, left + 8, 20)) for left in (32, 42, 50)]
    found = prediction(0, *in_crowd, (1, 0.9, (0, 0, 10, 10)))
    assert measure(coco, found)["bbox_mAP"] == pytest.approx(100)
    assert measure_images(coco, [encode_prediction(found)]) == {0: 1.0}


def test_only_the_images_that_were_seen_count(tmp_path: Path) -> None:
    coco = coco_of(tmp_path, [annotation(1, 0, 3, [0, 0, 10, 10]), annotation(2, 1, 3, [0, 0, 10, 10])])
    assert measure(coco, prediction(0, (1, 0.9, (0, 0, 10, 10))))["bbox_mAP"] == pytest.approx(100)


def test_the_figure_of_an_image_is_the_f1_of_its_sure_masks(tmp_path: Path) -> None:
    objects = [annotation(1, 0, 3, [0, 0, 10, 10]), annotation(2, 0, 90, [30, 0, 10, 10]),
               annotation(3, 1, 90, [30, 0, 10, 10])]  # fmt: skip
    coco = coco_of(tmp_path, objects)
    half = prediction(0, (1, 0.9, (0, 0, 10, 10)), (3, 0.4, (30, 0, 40, 10)), (2, 0.8, (30, 20, 40, 30)))
    wrong_class = prediction(1, (1, 0.9, (30, 0, 40, 10)))
    scores = measure_images(coco, [encode_prediction(sample) for sample in (half, wrong_class, prediction(2))])
    assert scores == {0: pytest.approx(2 * 1 / (2 + 2)), 1: 0.0, 2: 1.0}  # one match, two detections, two objects


def test_images_without_an_object_have_no_figure_and_say_so(tmp_path: Path) -> None:
    crowd = annotation(2, 1, 3, [10, 5, 20, 12], iscrowd=1)
    coco = coco_of(tmp_path, [annotation(1, 0, 3, [10, 5, 20, 12]), crowd])
    with pytest.raises(ValueError, match=r"instances_val2017\.json: mAP: found no object in 2 images"):
        measure(coco, prediction(1, (1, 0.9, (10, 5, 30, 17))), prediction(2))
