"""The public Python API, on the shared line."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import mobileclip_dense as mcd
from mobileclip_dense.artifact.artifact import load_artifact, load_golden
from mobileclip_dense.artifact.images import load_image
from mobileclip_dense.config import EvaluateConfig, FinetuneConfig, PretrainConfig
from mobileclip_dense.run.folder import load_run
from tests.conftest import Line, run_module

SHAPES = [(64, 64), (48, 96), (97, 31), (1, 200), (240, 320)]


def in_a_new_process(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_imports_no_library() -> None:
    loaded = in_a_new_process(
        "import sys; before = set(sys.modules); import mobileclip_dense;"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    ).split()
    assert set(loaded) <= {"mobileclip_dense", *sys.stdlib_module_names}


def test_predicting_and_listing_need_no_torch(line: Line) -> None:
    loaded = in_a_new_process(
        "import sys; import mobileclip_dense as mcd; mcd.list_encoders(); mcd.list_recipes();"
        f"mcd.load({str(line.artifact('segment', 'fp32.onnx'))!r}).predict({str(line.photo)!r});"
        f"mcd.verify({str(line.artifact('segment', 'fp32.onnx'))!r}); print(*sys.modules)"
    ).split()
    assert not {"torch", "coremltools", "mmseg", "pycocotools", "matplotlib"} & {name.split(".")[0] for name in loaded}


def test_every_public_name_is_there_and_documented() -> None:
    for name in mcd.__all__:  # importing a submodule would replace the function of its name
        assert find_spec(f"mobileclip_dense.{name}") is None, name
    assert set(mcd.__all__) <= set(dir(mcd))
    for name in mcd.__all__:
        assert getattr(mcd, name).__doc__, name
    assert mcd.__version__ == "0.1.0"
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        mcd.laod  # noqa: B018


@pytest.mark.parametrize("task", ["segment", "depth"])
def test_a_run_and_its_fp32_artifact_predict_the_same_at_the_size_of_the_image(line: Line, task: str) -> None:
    run, artifact = mcd.load(line.run(task)), mcd.load(line.artifact(task, "fp32.onnx"))
    assert run.task == artifact.task == task
    assert run.class_names == artifact.class_names
    rng = np.random.default_rng(0)
    for height, width in SHAPES:
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        ours, theirs = run.predict(image), artifact.predict(image)
        if isinstance(ours, mcd.Segmentation) and isinstance(theirs, mcd.Segmentation):
            assert ours.class_map.shape == (height, width)
            assert (ours.class_map == theirs.class_map).mean() >= 0.999
            assert ours.overlay().shape == (height, width, 3)
            assert sum(ours.shares.values()) == pytest.approx(1)
            largest = next(iter(ours.shares))
            assert ours.shares[largest] == (ours.class_map == ours.class_names.index(largest)).mean()
        else:
            assert isinstance(ours, mcd.Depth)
            assert isinstance(theirs, mcd.Depth)
            assert ours.depth_m.shape == (height, width)
            np.testing.assert_allclose(ours.depth_m, theirs.depth_m, rtol=1e-5)
            assert ours.colours().shape == (height, width, 3)


def test_the_class_map_of_a_golden_example_is_that_of_pytorch(line: Line) -> None:
    folder = line.artifact("segment", "fp32.onnx")
    golden = load_golden(folder)
    found = mcd.load(folder).predict(golden["input"][0])
    assert isinstance(found, mcd.Segmentation)
    assert (found.class_map == golden["class_map"][0]).mean() >= 0.999


def test_an_image_is_a_path_a_pil_image_or_an_array(line: Line) -> None:
    model = mcd.load(line.artifact("segment", "fp32.onnx"))
    pixels = load_image(line.photo)
    maps = [model.predict(image).class_map for image in (line.photo, str(line.photo), Image.fromarray(pixels), pixels)]  # type: ignore[union-attr]
    assert all((found == maps[0]).all() for found in maps)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "found float32 [4, 4, 3], expected a path, a PIL image or a uint8 array"),
        (np.zeros((4, 4), np.uint8), "found uint8 [4, 4]"),
        (np.zeros((0, 4, 3), np.uint8), "at least one pixel"),
        ([1, 2], "found list []"),
        ("nowhere.jpg", "nowhere.jpg: image: no such file"),
    ],
)
def test_what_is_no_image_is_refused_in_words(line: Line, image: Any, message: str) -> None:
    model = mcd.load(line.artifact("segment", "fp32.onnx"))
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        model.predict(image)
    assert message in str(error.value)


def test_prompts_are_refused_by_models_without_a_text_tower(line: Line) -> None:
    for folder in (line.run("segment"), line.artifact("depth", "fp32.onnx")):
        with pytest.raises(ValueError, match=r"prompts: found some, but a model for \w+ takes none"):
            mcd.load(folder).predict(line.photo, prompts=["a cube", "a ball"])


def test_towers_give_embeddings_and_probabilities(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = ["a red cube", "a blue ball", "a tree"]
    folders = mcd.export(line.clip, out=tmp_path)
    image_tower = next(folder for folder in folders if "embed-image" in folder.name)
    ours, theirs = mcd.load(line.clip), mcd.load(image_tower)
    for model in (ours, theirs):
        embedding = model.predict(line.photo)
        assert isinstance(embedding, mcd.Embedding)
        assert np.linalg.norm(embedding.vector) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(
        ours.predict(line.photo).vector,
        theirs.predict(line.photo).vector,
        atol=1e-5,  # type: ignore[union-attr]
    )
    labels = [model.predict(line.photo, prompts=prompts) for model in (ours, theirs)]
    for found in labels:
        assert isinstance(found, mcd.Labels)
        assert list(found.probabilities) == prompts
        assert sum(found.probabilities.values()) == pytest.approx(1)
        assert found.best == max(found.probabilities, key=lambda prompt: found.probabilities[prompt])
    assert labels[0].probabilities == pytest.approx(labels[1].probabilities, abs=1e-4)  # type: ignore[union-attr]
    text_tower = next(folder for folder in folders if "embed-text" in folder.name)
    with monkeypatch.context() as patched:  # the same prompts are not embedded again
        patched.setattr("mobileclip_dense.runtime.model.embed_prompts", None)
        patched.setattr("mobileclip_dense.runtime.model.find_text_tower", None)
        assert theirs.predict(line.photo, prompts=prompts) == labels[1]
    with pytest.raises(ValueError, match="task: found embed-text, expected a model of images"):
        mcd.load(text_tower)


def test_a_detector_gives_boxes_masks_and_class_names(line: Line, tmp_path: Path) -> None:
    config = mcd.create_config(
        "nano-detect", data=line.scenes / "coco", init=str(line.clip), out=tmp_path / "detect", crop_size_px=(64, 64),
        batch_size=2, max_iters=2, warmup_iters=1, num_workers=0,
    )  # fmt: skip
    assert isinstance(config, FinetuneConfig)
    run = mcd.finetune(config)
    found = mcd.load(run.folder).predict(np.zeros((50, 80, 3), np.uint8) + 100)
    assert isinstance(found, mcd.Detections)
    number = len(found.scores)
    assert found.boxes.shape == (number, 4)
    assert found.masks.shape == (number, 50, 80)
    assert found.class_names == tuple(run.record["class_names"])
    assert ((found.labels >= 0) & (found.labels < len(found.class_names))).all()
    assert (np.diff(found.scores) <= 0).all()


def test_export_offers_every_target(line: Line, tmp_path: Path) -> None:
    (package,) = mcd.export(line.run("depth"), "coreml", out=tmp_path, allow_accuracy_drop=True)
    assert load_artifact(package).precision == "fp16"
    figures = mcd.verify(package)
    assert figures["fp16_relative_error"] == load_artifact(package).parity["fp16_relative_error"]
    with pytest.raises(ValueError, match="target: found 'tflite', expected one of onnx, coreml"):
        mcd.export(line.run("depth"), "tflite")
    with pytest.raises(FileExistsError):
        mcd.export(line.run("depth"), "coreml", out=tmp_path)


def test_an_encoder_starts_from_a_run_and_fuses_exactly(line: Line) -> None:
    encoder = mcd.create_encoder("nano", weights=line.clip).eval()
    image = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        maps, fused = encoder(image), mcd.fuse(encoder)(image)
    assert [tuple(found.shape[1:]) for found in maps] == [
        (channels, 64 // stride, 96 // stride)
        for channels, stride in zip(encoder.channels, encoder.strides, strict=True)
    ]
    for found, expected in zip(fused, maps, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    key, value = next(iter(encoder.trunk.state_dict().items()))
    assert torch.equal(load_run(line.clip).weights[f"visual.trunk.{key}"], value)


def test_a_clip_starts_from_a_run(line: Line) -> None:
    clip = mcd.create_clip("nano", weights=line.clip)
    weights = load_run(line.clip).weights
    assert torch.equal(clip.state_dict()["logit_scale"], weights["logit_scale"])
    fresh = mcd.create_clip("nano").state_dict()
    assert any(not torch.equal(fresh[name], value) for name, value in clip.state_dict().items())


def test_training_from_python_is_training_from_the_command_line(line: Line, tmp_path: Path) -> None:
    settings: dict[str, Any] = dict(
        crop_size_px=(64, 64), batch_size=2, max_iters=4, warmup_iters=1, checkpoint_every=2
    )
    config = mcd.create_config("nano-segment", data=line.scenes / "ade", out=tmp_path / "run", init=str(line.clip),
                               **settings)  # fmt: skip
    run = mcd.finetune(config)  # type: ignore[arg-type]
    assert run.record["weights_sha256"] == load_run(line.run("segment")).record["weights_sha256"]
    evaluation = mcd.evaluate(EvaluateConfig(run=run.folder))
    assert evaluation["figures"]["mIoU"] == run.record["metrics"]["mIoU"]


def test_pretraining_from_python_returns_its_run(line: Line, tmp_path: Path) -> None:
    config = mcd.create_config("nano-scenes", data=line.scenes / "shards", out=tmp_path / "run", image_size_px=32,
                               batch_size=8, steps=4, checkpoint_every=2, warmup_steps=1, num_workers=0)  # fmt: skip
    assert isinstance(config, PretrainConfig)
    assert mcd.pretrain(config).record["weights_sha256"] == load_run(line.clip).record["weights_sha256"]


@pytest.mark.parametrize(
    ("recipe", "settings", "message"),
    [
        ("nano-sgment", {}, "recipe: found 'nano-sgment', expected one of nano-scenes"),
        ("nano-segment", {"data": "x"}, "nano-segment: found no out, expected a value for each"),
        ("nano-segment", {"data": "x", "out": "y", "lr": 1}, "found unknown settings lr, expected fields of Finetune"),
        ("nano-segment", {"data": "x", "out": "y", "batch_size": 0}, "--batch-size: found 0"),
    ],
)
def test_a_wrong_recipe_is_refused_in_words(recipe: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        mcd.create_config(recipe, **settings)
    assert message in str(error.value)


def test_lists_come_from_the_registries() -> None:
    assert "mci2" in mcd.list_encoders()
    assert set(mcd.list_heads("depth")) < set(mcd.list_heads())
    assert "upernet" not in mcd.list_heads("depth")
    assert "mci2-fpn-ade20k" in mcd.list_recipes()
    assert not any(name.endswith("-debug") for name in mcd.list_recipes())


def test_a_missing_folder_and_device_are_refused_in_words(line: Line) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: artifact: no such folder"):
        mcd.load("nowhere")
    with pytest.raises(ValueError, match="threads: found 0, expected at least 1"):
        mcd.load(line.artifact("segment", "fp32.onnx"), threads=0)
    with pytest.raises(ValueError, match="--provider: found tpu, expected one of"):
        mcd.load(line.artifact("segment", "fp32.onnx"), device="tpu")
    with pytest.raises(ValueError, match="device: found 'tpu', which torch does not offer here"):
        mcd.load(line.run("segment"), device="tpu")


def test_the_command_line_and_the_api_draw_the_same(line: Line, tmp_path: Path) -> None:
    folder = line.artifact("segment", "fp32.onnx")
    run_module("mobileclip_dense", "segment", folder, line.photo, "--out", tmp_path)
    written = np.asarray(Image.open(tmp_path / f"{line.photo.stem}-classes.png"))
    found = mcd.load(folder).predict(line.photo)
    assert isinstance(found, mcd.Segmentation)
    assert (written == found.class_map).all()
