"""Windows, scales and mirroring against direct computations, and the evaluate command on runs of two steps."""

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmseg.models import SegDataPreProcessor
from PIL import Image
from torch.nn import functional

from mobileclip_dense.__main__ import main
from mobileclip_dense.artifact.files import sha256_of
from mobileclip_dense.artifact.metrics import SegmentationScore
from mobileclip_dense.config import DataCheckConfig, EvaluateConfig, FinetuneConfig, PruneConfig
from mobileclip_dense.data.labelled.check import check_data
from mobileclip_dense.dense.evaluation.evaluate import evaluate
from mobileclip_dense.dense.evaluation.inference import add_probabilities, predict_classes, predict_depth, slide
from mobileclip_dense.dense.evaluation.pictures import draw_confusion
from mobileclip_dense.dense.evaluation.validation_set import ValidationSet, validation_set_of
from mobileclip_dense.dense.model import load_dense_run
from mobileclip_dense.dense.prune import prune
from mobileclip_dense.dense.training.train import evaluate_model, finetune

TALL, WIDE = 64, 96


class Convolution(torch.nn.Module):
    """Replaces a dense model: a 3x3 convolution, whose results depend on window borders like those of a network."""

    def __init__(self, num_outputs: int, *, symmetric: bool = False):
        super().__init__()
        kernel = torch.randn(num_outputs, 3, 3, 3, generator=torch.Generator().manual_seed(0))
        self.kernel = torch.nn.Parameter(kernel + kernel.flip(-1) if symmetric else kernel)
        self.out_channels, self.align_corners = num_outputs, False
        self.data_preprocessor = SegDataPreProcessor(mean=[0] * 3, std=[255] * 3, test_cfg=dict(size_divisor=32))

    def encode_decode(self, image: torch.Tensor, _metas: list[dict[str, Any]]) -> torch.Tensor:
        return functional.conv2d(image, self.kernel, padding=1)


def random_image(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_windows_are_averaged_as_a_loop_by_hand_averages_them() -> None:
    model = Convolution(2)
    image = random_image(96, 160)[None] / 255
    sums, counts = np.zeros((2, 96, 160)), np.zeros((96, 160))
    for top in (0, 32):
        for left in (0, 42, 84, 96):  # two thirds of 64, and the last one at the border
            window = image[:, :, top : top + 64, left : left + 64]
            padded = np.pad(window[0].numpy().astype(np.float64), ((0, 0), (1, 1), (1, 1)))
            for row in range(3):
                for column in range(3):
                    weights = model.kernel[:, :, row, column].detach().numpy().astype(np.float64)
                    part = padded[:, row : row + 64, column : column + 64]
                    sums[:, top : top + 64, left : left + 64] += np.tensordot(weights, part, 1)
            counts[top : top + 64, left : left + 64] += 1
    with torch.no_grad():
        np.testing.assert_allclose(slide(model, image, (64, 64)), sums / counts, atol=1e-5)
        assert not torch.allclose(slide(model, image, (64, 64)), slide(model, image, None), atol=1e-3)
        for window in ((96, 160), (128, 192)):
            assert torch.equal(slide(model, image, window), slide(model, image, None))
        assert slide(model, image, (64, 192)).shape == (2, 96, 160)  # longer than the image, and less high


def test_a_mirrored_view_is_turned_back_and_averaged() -> None:
    image = random_image(40, 50)  # padded to 64 for the model
    predict = {
        symmetric: [
            predict_depth(Convolution(1, symmetric=symmetric), [view], (40, 50), window_px=None, flip=flip)
            for view, flip in ((image, False), (image.flip(-1), False), (image, True))
        ]
        for symmetric in (True, False)
    }
    plain, of_mirrored, averaged = predict[False]
    torch.testing.assert_close(averaged, (plain + of_mirrored.flip(-1)) / 2)
    assert not torch.allclose(averaged, plain, atol=1e-3)
    plain, _, averaged = predict[True]
    torch.testing.assert_close(averaged, plain)


def test_class_probabilities_are_averaged_over_sizes_and_mirrors() -> None:
    model, views = Convolution(20), [random_image(40, 50), random_image(60, 75)]
    sums = np.zeros((20, 40, 50))
    for view in views:
        for image, mirrored in ((view, False), (view.flip(-1), True)):
            scores = functional.conv2d(image[None].double() / 255, model.kernel.double(), padding=1)
            scores = scores.flip(-1) if mirrored else scores
            sums += functional.interpolate(scores, (40, 50), mode="bilinear").softmax(1)[0].detach().numpy()
    found = predict_classes(model, views, (40, 50), window_px=None, flip=True)
    assert (found.numpy() == sums.argmax(0)).mean() > 0.999
    alone = predict_classes(model, views[:1], (40, 50), window_px=None, flip=False)
    assert (found != alone).float().mean() > 0.1


def test_probabilities_taken_a_few_classes_at_a_time_are_the_softmax() -> None:
    scores = torch.randn(37, 6, 5, generator=torch.Generator().manual_seed(0)) * 30
    sums = torch.ones(37, 6, 5)
    add_probabilities(sums, scores, lambda part: part)
    torch.testing.assert_close(sums - 1, scores.double().softmax(0).float())


def test_predictions_that_are_not_finite_are_refused() -> None:
    model = Convolution(3)
    model.kernel.data[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        predict_classes(model, [random_image(40, 50)], (40, 50), window_px=None, flip=False)


def write_folder(root: Path, task: str, num_classes: int = 3) -> Path:
    """Random pictures, 64x96, with random classes or depths in patches."""
    rng = np.random.default_rng(0)
    for split in ("training", "validation") if task == "segment" else ("train", "test"):
        for kind in ("images", "annotations"):
            (root / kind / split).mkdir(parents=True)
        for index in range(3):
            image = rng.integers(0, 256, (TALL, WIDE, 3), dtype=np.uint8)
            Image.fromarray(image).save(root / "images" / split / f"{index}.jpg")
            if task == "segment":
                labels = rng.choice(np.array([*range(num_classes), 255], np.uint8), (8, 12))
                labels[0, 0] = num_classes - 1
            else:
                labels = rng.integers(0, 12000, (8, 12)).astype(np.uint16)
            label = Image.fromarray(labels.repeat(8, axis=0).repeat(8, axis=1))
            label.save(root / "annotations" / split / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of two steps, `segment` and `depth`, on folders `segment-data` and `depth-data`. Do not change them."""
    root = tmp_path_factory.mktemp("evaluate")
    for task in ("segment", "depth"):
        finetune(FinetuneConfig(
            data=write_folder(root / f"{task}-data", task), out=root / task, task=task, crop_size_px=(64, 64),
            batch_size=2, max_iters=2, warmup_iters=1, neck_channels=8, head_channels=8, num_workers=0,
        ))  # fmt: skip
    return root


def figures_of(out: Path) -> dict[str, float]:
    return json.loads((out / "evaluation.json").read_text())["figures"]


@pytest.mark.parametrize("task", ["segment", "depth"])
def test_the_default_gives_the_figures_with_which_fine_tuning_ended(runs: Path, tmp_path: Path, task: str) -> None:
    out = evaluate(EvaluateConfig(run=runs / task, out=tmp_path / "whole", num_worst=1))
    record = json.loads((out / "evaluation.json").read_text())
    run = json.loads((runs / task / "run.json").read_text())
    assert record["figures"] == run["metrics"]
    assert record["weights_sha256"] == sha256_of(runs / task / "weights.safetensors")
    assert [row["name"] for row in record["images"]] == ["0.jpg", "1.jpg", "2.jpg"]
    pictures = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png"))
    worst = max(record["images"], key=lambda row: row["rmse"] if task == "depth" else -row["mIoU"])
    assert pictures == ["confusion.png"] * (task == "segment") + [f"worst/01-{worst['name'][0]}.png"]
    page = (out / "evaluation.html").read_text()
    assert page.count("data:image/png;base64,") == len(pictures)
    assert "http" not in page


def test_figures_by_class_are_those_of_mmsegs_own_predictions(runs: Path, tmp_path: Path) -> None:
    config = EvaluateConfig(run=runs / "segment", out=tmp_path / "out", num_worst=0)
    classes = json.loads((evaluate(config) / "evaluation.json").read_text())["classes"]
    model, run, settings = load_dense_run(runs / "segment")
    held_out = ValidationSet(config, run, settings, predict_classes)
    score = SegmentationScore(num_classes=3)
    for packed in held_out.dataset:
        with torch.no_grad():
            (sample,) = model.test_step({"inputs": [packed["inputs"]], "data_samples": [packed["data_samples"]]})
        score.add(sample.pred_sem_seg.data[0].numpy(), sample.gt_sem_seg.data[0].numpy())
    assert [row["name"] for row in classes] == ["class 0", "class 1", "class 2"]
    assert [row["iou_percent"] for row in classes] == pytest.approx((score.iou() * 100).tolist())
    assert [row["accuracy_percent"] for row in classes] == pytest.approx((score.accuracy() * 100).tolist())
    assert [row["num_pixels"] for row in classes] == score.confusion.sum(1).tolist()


def test_the_command_line_evaluates_with_windows_sizes_and_mirroring(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(runs / "segment", tmp_path / "run")
    every_way = ["--mode", "slide", "--scales", "0.75", "1", "1.5", "--flip", "--max-images", "2", "--num-worst", "0"]
    monkeypatch.setattr(sys, "argv", ["mobileclip-dense", "evaluate", str(run), *every_way])
    main()
    table = capsys.readouterr().out
    record = json.loads((run / "evaluation" / "evaluation.json").read_text())
    assert f"mIoU {record['figures']['mIoU']:.4g}" in table
    assert table.index("iou_percent") < table.index("class 1")
    assert record["settings"] == {"mode": "slide", "window_px": [64, 64], "scales": [0.75, 1.0, 1.5], "flip": True,
                                  "eigen_crop": False, "max_images": 2}  # fmt: skip
    assert record["num_images"] == 2
    with pytest.raises(SystemExit):
        main()
    assert "--force" in capsys.readouterr().err


def test_each_way_to_look_changes_the_prediction(runs: Path) -> None:
    _, run, settings = load_dense_run(runs / "depth")
    plain = EvaluateConfig(run=runs / "depth")
    changes: list[dict[str, Any]] = [{}, {"mode": "slide"}, {"scales": (1.5,)}, {"scales": (1.0, 1.5)}, {"flip": True}]
    maps = [
        ValidationSet(dataclasses.replace(plain, **change), run, settings, predict_depth).view(0).predicted
        for change in changes
    ]
    assert len({array.tobytes() for array in maps}) == len(changes)
    np.testing.assert_allclose(maps[3], (maps[0] + maps[2]) / 2, rtol=1e-5)
    assert all(array.shape == (TALL, WIDE) for array in maps)


def test_another_folder_with_the_runs_classes_can_be_measured(runs: Path, tmp_path: Path) -> None:
    fewer = write_folder(tmp_path / "fewer", "segment", num_classes=2)
    out = evaluate(EvaluateConfig(run=runs / "segment", out=tmp_path / "out", data=fewer, num_worst=0))
    record = json.loads((out / "evaluation.json").read_text())
    assert record["data"] == str(fewer)
    assert [row["num_pixels"] > 0 for row in record["classes"]] == [True, True, False]
    assert record["classes"][2]["accuracy_percent"] is None


def test_another_folders_labels_are_read_like_those_of_the_run(tmp_path: Path) -> None:
    """In training, a CSV file says that indices start at 1; the other folder has no names that would."""
    root, names = write_folder(tmp_path / "ones", "segment"), tmp_path / "names.csv"
    for path in root.glob("annotations/*/*.png"):
        labels = np.asarray(Image.open(path))
        Image.fromarray(np.where(labels < 255, labels + 1, 255).astype(np.uint8)).save(path)
    names.write_text("index,name\n1,floor\n2,wall\n3,door\n")
    config = FinetuneConfig(
        data=root, out=tmp_path / "run", class_names=names, crop_size_px=(64, 64), batch_size=2, max_iters=2,
        warmup_iters=1, neck_channels=8, head_channels=8, num_workers=0,
    )  # fmt: skip
    finetune(config)
    own, other = (
        evaluate(EvaluateConfig(run=config.out, out=tmp_path / str(data is None), data=data, num_worst=0))
        for data in (None, root)
    )
    assert figures_of(other) == figures_of(own)
    (root / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tStuff\tName\n" + "".join(
        f"{number}\t1\t1\t1\t1\t{name}\n" for number, name in enumerate(("red", "green", "blue"), 1)
    ))  # fmt: skip
    config = EvaluateConfig(run=config.out, out=tmp_path / "named", data=root, num_worst=0)
    with pytest.raises(ValueError, match=r"found 3 \(red, green, blue\), .* or name them with --class-names"):
        evaluate(config)
    assert figures_of(evaluate(dataclasses.replace(config, class_names=names))) == figures_of(own)
    with pytest.raises(ValueError, match="--skip-bad: found True, expected only with --data"):
        dataclasses.replace(config, data=None, skip_bad=True)


@pytest.mark.parametrize("task", ["segment", "depth"])
def test_pictures_of_any_shape_are_trained_on_and_measured_alike(tmp_path: Path, task: str) -> None:
    root = write_folder(tmp_path / "data", task)
    shapes = [(1, 1), (1, 300), (8, 300)]
    for number, (height, width) in enumerate(shapes):
        label = np.resize(np.array([0, 1, 2, 2] if task == "segment" else [900, 2000, 0], np.uint8 if task == "segment"
                          else np.uint16), (height, width))  # fmt: skip
        for split in ("training", "validation") if task == "segment" else ("test",):  # depth is not resized to a crop
            Image.fromarray(np.full((height, width, 3), 9, np.uint8)).save(root / "images" / split / f"odd{number}.png")
            Image.fromarray(label).save(root / "annotations" / split / f"odd{number}.png")
    check_data(DataCheckConfig(name=task, path=root))
    config = FinetuneConfig(
        data=root, out=tmp_path / "run", task=task, crop_size_px=(32, 32), batch_size=3, max_iters=4, warmup_iters=1,
        neck_channels=8, head_channels=8, num_workers=0,
    )  # fmt: skip
    finetune(config)
    plain = EvaluateConfig(run=config.out, out=tmp_path / "plain", num_worst=6 if task == "segment" else 1)
    assert figures_of(evaluate(plain)) == json.loads((config.out / "run.json").read_text())["metrics"]
    with pytest.raises(ValueError, match=r"--scales: found 0\.01, which makes the image 2x2 pixels"):
        evaluate(dataclasses.replace(plain, scales=(0.01,), out=tmp_path / "none"))


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "image gone": (lambda val: (val / "1.jpg").unlink(), r"found 2 held-out images, expected 3: 1 missing \(1\.jpg\)"),
    "image added": (lambda val: shutil.copy(val / "1.jpg", val / "4.jpg"), r"4\.png: mask: no such file"),
    "pair added": (
        lambda val: [shutil.copy(file, file.with_stem("4")) for file in (val / "1.jpg", masks_of(val) / "1.png")],
        r"found 4 held-out images, expected 3: 1 new \(4\.jpg\)",
    ),
    "image renamed": (lambda val: (val / "1.jpg").rename(val / "1.jpeg"), r"1 missing \(1\.jpg\), 1 new \(1\.jpeg\)"),
    "mask gone": (lambda val: (masks_of(val) / "1.png").unlink(), r"1\.png: mask: no such file"),
    "mask of another size": (
        lambda val: Image.fromarray(np.zeros((9, 9), np.uint8)).save(masks_of(val) / "1.png"),
        r"1\.png: size: found 9x9, expected 64x96 like 1\.jpg",
    ),
    "another class": (
        lambda val: Image.fromarray(np.full((TALL, WIDE), 7, np.uint8)).save(masks_of(val) / "1.png"),
        r"1\.png: labels: found 7, expected at most 2 for 3 classes",
    ),
    "image of another size": (
        lambda val: Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(val / "1.jpg"),
        r"1\.png: size: found 64x96, expected 9x9 like 1\.jpg",
    ),
    "image cut short": (lambda val: (val / "1.jpg").write_bytes(b"\xff\xd8\xff"), r"1\.jpg: image"),
    "nothing labelled": (
        lambda val: [Image.fromarray(np.full((TALL, WIDE), 255, np.uint8)).save(masks_of(val) / f"{n}.png")
                     for n in range(3)],
        "found no class in any of 3 held-out masks",
    ),
    "held out gone": (lambda val: shutil.rmtree(val), "without an image|missing"),
    "all gone": (lambda val: shutil.rmtree(val.parent.parent), "no such file or folder"),
}  # fmt: skip


def masks_of(images: Path) -> Path:
    return images.parent.parent / "annotations" / images.name


@pytest.mark.parametrize("name", CHANGES)
def test_held_out_images_that_have_changed_since_training_are_named(runs: Path, tmp_path: Path, name: str) -> None:
    change, message = CHANGES[name]
    run = shutil.copytree(runs / "segment", tmp_path / "run")
    data = shutil.copytree(runs / "segment-data", tmp_path / "data")
    settings = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(settings | {"data": str(data)}))
    change(data / "images" / "validation")
    expected = (
        rf"run: the held-out images have changed since the run was trained: (.|\n)*({message})(.|\n)*evaluate --data"
    )
    for call in (
        lambda: evaluate(EvaluateConfig(run=run, out=tmp_path / "out")),
        lambda: prune(PruneConfig(run=run, out=tmp_path / "out", target_params=0.8)),
    ):
        with pytest.raises(ValueError, match=expected):
            call()
    assert not (tmp_path / "out").exists()


def test_files_left_out_in_training_are_left_out_of_the_measure(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", "segment")
    (root / "annotations" / "validation" / "1.png").unlink()
    config = FinetuneConfig(
        data=root, out=tmp_path / "run", crop_size_px=(64, 64), batch_size=2, max_iters=2, warmup_iters=1,
        neck_channels=8, head_channels=8, num_workers=0, skip_bad=True,
    )  # fmt: skip
    finetune(config)
    plain = EvaluateConfig(run=config.out, out=tmp_path / "plain", num_worst=0)
    assert figures_of(evaluate(plain)) == json.loads((config.out / "run.json").read_text())["metrics"]
    (root / "annotations" / "validation" / "2.png").unlink()
    with pytest.raises(ValueError, match=r"changed since the run was trained: .* expected 2: 1 missing \(2\.jpg\)"):
        evaluate(dataclasses.replace(plain, out=tmp_path / "out"))


def test_figures_that_are_not_numbers_are_an_error(runs: Path, tmp_path: Path) -> None:
    """Masks without labels, and a model without finite weights."""
    model, run, settings = load_dense_run(runs / "segment")
    folder = validation_set_of(run, settings)
    Image.fromarray(np.full((TALL, WIDE), 255, np.uint8)).save(tmp_path / "mask.png")
    unlabelled = tuple(pair._replace(label=tmp_path / "mask.png") for pair in folder.val)
    with pytest.raises(ValueError, match="mIoU: found no labelled pixel in 3 images"):
        evaluate_model(model, settings, dataclasses.replace(folder, val=unlabelled))
    model, run, settings = load_dense_run(runs / "depth")
    for parameter in model.parameters():
        parameter.data.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"rmse.*: found a value that is not finite on the held-out images"):
        evaluate_model(model, settings, validation_set_of(run, settings))


def test_what_cannot_be_evaluated_is_refused(runs: Path, tmp_path: Path) -> None:
    segment = EvaluateConfig(run=runs / "segment", out=tmp_path / "out")
    (tmp_path / "begun").mkdir()
    shutil.copy(runs / "segment" / "config.json", tmp_path / "begun")
    more = write_folder(tmp_path / "more", "segment", num_classes=5)
    empty = tmp_path / "empty"
    for kind in ("images", "annotations"):
        (empty / kind / "training").mkdir(parents=True)
        (empty / kind / "validation").mkdir()
    for changes, message in (
        ({"run": tmp_path / "begun"}, "the run is not complete"),
        ({"data": more}, r"classes: found 5 \(class 0, class 1, class 2, …\), expected those of the run .*: 3"),
        ({"data": empty}, "empty.*: found .*expected"),
        ({"scales": (0.25,)}, r"0\.jpg: --scales: found 0\.25, which makes the image 16x24 pixels, expected .* 32"),
        ({"out": runs / "segment", "force": True}, "segment: is not replaced: it is the run itself"),
        ({"eigen_crop": True}, "--eigen-crop: found a run for task segment, expected depth"),
        ({"run": runs / "depth", "eigen_crop": True}, r"0\.jpg: eigen crop: found a map of 64x96, expected 480x640"),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            evaluate(dataclasses.replace(segment, **changes))
    assert not (tmp_path / "out").exists()


def test_names_that_no_font_has_are_drawn() -> None:
    assert draw_confusion(np.eye(3, dtype=np.int64), ["$a_b$", "caf\udce9", "犬"]).startswith(b"\x89PNG")
