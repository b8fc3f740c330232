import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmseg.registry import MODELS
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes

from mobileclip_dense.__main__ import run_named
from mobileclip_dense.artifact.preprocess import Normalization
from mobileclip_dense.config import EvaluateConfig, FinetuneConfig, PruneConfig
from mobileclip_dense.config.encoders import ENCODERS
from mobileclip_dense.data.labelled.coco_check import check_coco
from mobileclip_dense.dense.detector import InstanceDetector, detector_config
from mobileclip_dense.dense.evaluation.detection_pictures import draw_detections
from mobileclip_dense.dense.evaluation.evaluate import evaluate
from mobileclip_dense.dense.model import build_model, load_dense_run
from mobileclip_dense.dense.prune import prune
from mobileclip_dense.dense.training.coco import CocoObjects, fit_boxes, read_example, train_transforms, val_transforms
from mobileclip_dense.deploy.prepare import prepare
from mobileclip_dense.recipes.finetuning import RECIPES
from mobileclip_dense.run.folder import load_run
from tests.conftest import Line
from tests.data.coco_folder import HEIGHT, WIDTH, annotation, polygon, write_coco

DETECTORS = [name for name in RECIPES if RECIPES[name]().task == "detect" and not name.endswith("-debug")]


def settings(**changes: object) -> FinetuneConfig:
    return dataclasses.replace(
        RECIPES["nano-detect"](), **{"data": Path("unused"), "out": Path("unused"), "crop_size_px": (64, 64),
                                     "neck_channels": 16, "head_channels": 8} | changes
    )  # fmt: skip


@pytest.fixture
def detector() -> InstanceDetector:
    torch.manual_seed(0)
    return build_model(settings(), num_classes=3).eval()


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detection_recipe_builds(name: str) -> None:
    recipe = RECIPES[name]()
    with torch.device("meta"):
        model = build_model(recipe, 80)
    assert model.backbone.encoder.name == recipe.encoder
    assert model.roi_heads.box_predictor.cls_score.out_features == 81


def test_pixels_are_normalized_once(monkeypatch: pytest.MonkeyPatch) -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.4, 0.3)
    spec = dataclasses.replace(ENCODERS["nano"], normalization=Normalization(mean=mean, std=std))
    monkeypatch.setitem(ENCODERS, "nano", spec)
    model = build_model(settings(), num_classes=3).eval()
    image = torch.rand(3, 64, 96)
    normalized = (image - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    by_hand = model.neck(dict(zip("0123", model.backbone.encoder(normalized[None]), strict=True)))
    maps = model([image])
    assert list(maps) == ["0", "1", "2", "3", "pool"]
    for name, expected in by_hand.items():
        torch.testing.assert_close(maps[name], expected)


def test_images_keep_their_size_in_training_and_get_the_short_side_in_evaluation(detector: InstanceDetector) -> None:
    image = torch.rand(3, 32, 48)
    assert detector([image])["0"].shape == (1, 16, 16, 24)  # 64x96
    assert detector([torch.rand(3, 32, 200)])["0"].shape == (1, 16, 8, 32)  # 17x107, padded: the long side is bounded
    assert detector.train()([image])["0"].shape == (1, 16, 8, 16)  # 32x48, padded to 32x64


@pytest.mark.parametrize("size", [(1, 1), (1, 1000), (3000, 2)])
def test_an_image_of_any_shape_is_trained_on_and_measured(detector: InstanceDetector, size: tuple[int, int]) -> None:
    with torch.no_grad():
        (found,) = detector([torch.rand(3, *size)], [{"image_id": 4}], "predict")
    assert found["masks"].shape[1:] == size
    example = {
        "image": tv_tensors.Image(torch.zeros(3, *size, dtype=torch.uint8)),
        "boxes": tv_tensors.BoundingBoxes([[0, 0, size[1], size[0]]], format="XYXY", canvas_size=size),
        "masks": tv_tensors.Mask(torch.ones(1, *size, dtype=torch.uint8)),
        "labels": torch.tensor([1]),
    }
    out = train_transforms(settings())(example)
    assert out["image"].shape == (3, 64, 64)


def test_predictions_are_in_the_pixels_of_the_image(detector: InstanceDetector) -> None:
    images = [torch.rand(3, 32, 48), torch.rand(3, 128, 96)]
    with torch.no_grad():
        for image, found in zip(images, detector(images, [{"image_id": 4}, {"image_id": 9}], "predict"), strict=True):
            height, width = image.shape[1:]
            assert found["masks"].shape == (len(found["boxes"]), height, width) and len(found["boxes"]) > 0
            assert found["masks"].dtype == torch.bool
            limits = torch.tensor([width, height, width, height])
            assert ((found["boxes"] >= 0) & (found["boxes"] <= limits + 1e-3)).all()
            assert found["boxes"].amax(0)[2] > 0.9 * width  # not those of the resized image
            assert ((found["labels"] >= 1) & (found["labels"] <= 3)).all()
            assert found["image_id"] == (4 if image is images[0] else 9)


def test_anchors_stay_exact_in_bfloat16(detector: InstanceDetector) -> None:
    made = []
    detector.rpn.anchor_generator.register_forward_hook(lambda module, inputs, anchors: made.append(anchors[0]))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        detector([torch.rand(3, 64, 96)], mode="predict")
    assert made[0].dtype == torch.float32


def test_a_batch_without_a_single_object_has_a_finite_loss(detector: InstanceDetector) -> None:
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64),
               "masks": torch.zeros(0, 64, 64, dtype=torch.uint8)}  # fmt: skip
    losses = detector.train()([torch.rand(3, 64, 64)] * 2, [nothing, nothing], "loss")
    sum(losses.values()).backward()
    assert torch.isfinite(sum(losses.values()))
    assert all(parameter.grad is not None for parameter in detector.parameters())  # DDP waits for each


def test_a_crop_leaves_boxes_around_what_is_seen() -> None:
    masks = torch.zeros(4, 20, 30, dtype=torch.uint8)
    masks[0, 2:6, 3:9] = 1  # not cropped: its box is unchanged, including fractions of a pixel
    masks[1, 0:4, 20:22] = 1  # an L whose foot is cut off
    masks[3, 19, 29] = 1
    boxes = torch.tensor([[3.2, 1.9, 8.6, 6.1], [10.0, 0.0, 22.0, 20.0], [5.0, 5.0, 9.0, 9.0], [28.5, 19.5, 30, 20]])
    example = {"boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(20, 30)),
               "masks": tv_tensors.Mask(masks), "labels": torch.tensor([1, 2, 3, 4])}  # fmt: skip
    fitted = fit_boxes(example)
    assert fitted["labels"].tolist() == [1, 2]  # the third has no pixel, the fourth is thinner than one
    torch.testing.assert_close(fitted["boxes"][0].as_subclass(torch.Tensor), boxes[0])
    assert fitted["boxes"][1].tolist() == [19, 0, 22, 5]
    assert len(fitted["masks"]) == 2


def test_boxes_masks_labels_and_pixels_go_through_the_transforms_together(tmp_path: Path) -> None:
    """Three rectangles of three colours, cropped, resized and mirrored: each label still matches its colour."""
    corners = {1: (4, 4, 24, 16), 2: (30, 6, 50, 34), 3: (6, 22, 26, 36)}
    categories = {1: 3, 2: 7, 3: 90}
    image = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8)
    objects = []
    for label, (left, top, right, bottom) in corners.items():
        image[label - 1, top:bottom, left:right] = 255
        box = [left, top, right - left, bottom - top]
        objects.append(annotation(label, 0, categories[label], box))
    objects.append(annotation(4, 0, 3, [0, 0, WIDTH, HEIGHT], iscrowd=1))
    root = write_coco(tmp_path / "coco", {"train": objects, "val": objects}, num_images=1)
    coco = check_coco(settings(data=root))
    entry = CocoObjects(coco, "train", val_transforms()).get_data_info(0)
    example = read_example(entry) | {"image": tv_tensors.Image(image)}
    assert example["labels"].tolist() == [1, 2, 3]  # no crowd
    assert example["boxes"].tolist() == [list(map(float, box)) for box in corners.values()]
    torch.manual_seed(0)
    transform = train_transforms(settings(colour_jitter=False, scale_range=(0.5, 2.0)))
    seen = 0
    for _ in range(20):
        out = transform(example)
        assert out["image"].shape == (3, 64, 64) and out["image"].dtype == torch.float32
        for label, box, mask in zip(out["labels"], out["boxes"], out["masks"], strict=True):
            inside = out["image"][:, mask.bool()].mean(1)
            assert inside.argmax() == label - 1 and inside.max() > 0.7
            assert (box - masks_to_boxes(mask[None])[0]).abs().max() <= 2.01
            seen += 1
    assert seen > 20


def test_polygons_reach_the_model_as_masks(tmp_path: Path) -> None:
    triangle = annotation(1, 0, 3, [10, 10, 20, 20], segmentation=[[10, 10, 30, 10, 10, 30]])
    two_parts = annotation(2, 0, 3, [0, 0, 60, 10], segmentation=polygon(0, 0, 10, 10) + polygon(50, 0, 10, 10))
    objects = {"train": [triangle, two_parts], "val": [triangle, two_parts]}
    coco = check_coco(settings(data=write_coco(tmp_path / "coco", objects, num_images=1)))
    masks = CocoObjects(coco, "val", val_transforms())[0]["data_samples"]["masks"].bool()
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    expected = (rows >= 10) & (columns >= 10) & (rows + columns <= 39)
    assert (masks[0] ^ expected).sum() <= 21  # the diagonal
    assert masks[1].sum() == 200 and not masks[1, :, 10:50].any()


@pytest.fixture(scope="module")
def run(line: Line, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps from the pretrained tower through the command line."""
    out = tmp_path_factory.mktemp("detect") / "run"
    run_named(
        "finetune",
        ["nano-detect", "--data", str(line.scenes / "coco"), "--out", str(out), "--init", str(line.clip),
         "--crop-size-px", "64", "64", "--batch-size", "2", "--max-iters", "2", "--warmup-iters", "1",
         "--learning-rate", "1e-5"],
    )  # fmt: skip
    return out


def test_two_steps_leave_a_run_that_measures_the_same_again(line: Line, run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    assert record["class_names"][:2] == ["sphere", "dome"] and record["num_val_images"] == 6
    assert {"bbox_mAP", "segm_mAP"} <= record["metrics"].keys()
    assert isinstance(load_dense_run(run)[0], InstanceDetector)
    folder = evaluate(EvaluateConfig(run=run, out=run.parent / "evaluation", num_worst=2))
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert evaluation["figures"] == pytest.approx(record["metrics"])
    defined = [row["box_ap"] for row in evaluation["classes"] if row["box_ap"] is not None]
    assert sum(defined) / len(defined) == pytest.approx(record["metrics"]["bbox_mAP"])
    assert sorted(path.suffix for path in (folder / "worst").iterdir()) == [".png", ".png"]


def test_held_out_images_alone_are_enough_to_measure_and_bad_ones_are_left_out_if_asked(
    line: Line, run: Path, tmp_path: Path
) -> None:
    data = tmp_path / "coco"
    (data / "annotations").mkdir(parents=True)
    name = "instances_val2017.json"
    shutil.copy(line.scenes / "coco" / "annotations" / name, data / "annotations" / name)
    shutil.copytree(line.scenes / "coco" / "val2017", data / "val2017")
    next((data / "val2017").iterdir()).write_bytes(b"not an image")
    config = EvaluateConfig(run=run, out=tmp_path / "evaluation", data=data, num_worst=0)
    with pytest.raises(ValueError, match=r"1 images or annotations cannot be used; .*--skip-bad"):
        evaluate(config)
    with pytest.raises(ValueError, match="--class-names: COCO's annotation files contain"):
        evaluate(dataclasses.replace(config, class_names=data / "names.txt"))
    folder = evaluate(dataclasses.replace(config, skip_bad=True))
    assert len(json.loads((folder / "evaluation.json").read_text())["images"]) == 5


def test_held_out_images_that_have_changed_since_training_are_named(line: Line, run: Path, tmp_path: Path) -> None:
    data = shutil.copytree(line.scenes / "coco", tmp_path / "coco")
    own = shutil.copytree(run, tmp_path / "run")
    config = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps(config | {"data": str(data)}))
    plain = EvaluateConfig(run=own, out=tmp_path / "evaluation", num_worst=0)
    file = data / "annotations" / "instances_val2017.json"
    contents = json.loads(file.read_text())
    first, *images = contents["images"]
    objects = [entry for entry in contents["annotations"] if entry["image_id"] != first["id"]]
    file.write_text(json.dumps(contents | {"images": images, "annotations": objects}))
    changed = "the held-out images have changed since the run was trained"
    with pytest.raises(ValueError, match=rf"{changed}: .* expected 6: 1 missing \({first['file_name']}\)"):
        evaluate(plain)
    file.write_text(json.dumps(contents))
    (data / "val2017" / first["file_name"]).unlink()
    with pytest.raises(ValueError, match=rf"{changed}: (.|\n)*{first['file_name']}: image: no such file"):
        evaluate(plain)


def test_the_pretrained_tower_is_what_a_detector_starts_from(line: Line, run: Path) -> None:
    name = "stages.2.blocks.0.mlp.fc1.weight"
    tuned, clip = load_run(run).weights, load_run(line.clip).weights
    moved = (tuned[f"backbone.encoder.trunk.{name}"] - clip[f"visual.trunk.{name}"]).abs().max()
    assert 0 < moved <= 2.1e-5  # two steps of AdamW
    model = MODELS.build(detector_config(settings(init=str(run)), 3))  # a detection run can be fine-tuned too
    model.backbone.init_weights()
    assert torch.equal(model.state_dict()[f"backbone.encoder.trunk.{name}"], tuned[f"backbone.encoder.trunk.{name}"])


def test_a_detector_is_neither_pruned_nor_exported(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="task: found detect, expected segment or depth"):
        prune(PruneConfig(run=run, out=tmp_path / "pruned", target_params=0.5))
    with pytest.raises(ValueError, match="task: found detect, expected segment or depth"):
        prepare(run, None)


def test_a_picture_of_objects_has_their_colours() -> None:
    image = np.full((60, 80, 3), 100, np.uint8)
    masks = np.zeros((2, 60, 80), bool)
    masks[0, 30:50, 10:40] = True
    masks[1, 40:50, 20:40] = True
    boxes = np.array([[10, 30, 40, 50], [-5, 40, 200, 50.0]])
    palette = [(250, 0, 0), (0, 250, 0)]
    for scores in (np.array([0.2, 0.9]), None):
        drawn = draw_detections(image, boxes, masks, np.array([1, 2]), scores, ["cup", "dog"], palette)
        assert drawn.dtype == np.uint8 and drawn.shape == image.shape
        assert drawn[45, 15].tolist() == [168, 55, 55]  # 55 % picture, 45 % red
        assert drawn[45, 30, 1] > drawn[45, 30, 0]  # the second lies on top
        assert drawn[47, 10].tolist() == [250, 0, 0]  # the box
        assert drawn[2, 70].tolist() == [100, 100, 100]
    upside_down = draw_detections(image, boxes, masks, np.array([1, 2]), np.array([0.9, 0.2]), ["cup", "dog"], palette)
    assert upside_down[45, 30, 0] > upside_down[45, 30, 1]  # the highest score on top
