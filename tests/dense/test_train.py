import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mmengine
import pytest
import torch
from mmengine.runner import Runner

import mobileclip_dense.dense  # noqa: F401
from mobileclip_dense.config import config_from_json
from mobileclip_dense.dense.evaluation.metrics import IoUScore
from mobileclip_dense.dense.model import load_dense_run, model_config
from mobileclip_dense.dense.training.train import finetune
from mobileclip_dense.models.reparam import fuse_model, unfused_modules
from mobileclip_dense.recipes.finetuning import RECIPES
from mobileclip_dense.run.checkpoints import checkpoint_file
from mobileclip_dense.run.folder import load_run
from mobileclip_dense.run.training_log import read_metrics
from tests.conftest import REPOSITORY, SMALL_FINETUNE, Line, run_module, write_labelled_folder
from tests.models.test_reparam import randomize, relative_error


def test_fine_tuning_starts_from_the_pretrained_tower(line: Line, tmp_path: Path) -> None:
    out = tmp_path / "still"
    run_module("mobileclip_dense", "finetune", "nano-segment", "--data", line.scenes / "ade", "--out", out, "--init",
               line.clip, *SMALL_FINETUNE, "--max-iters", "2", "--learning-rate", "0")  # fmt: skip
    name = "stages.2.blocks.0.mlp.fc1.weight"
    tuned, clip = load_run(out).weights, load_run(line.clip).weights
    assert torch.equal(tuned[f"backbone.encoder.trunk.{name}"], clip[f"visual.trunk.{name}"])
    record = json.loads((out / "run.json").read_text())
    assert record["parent"]["weights_sha256"] == json.loads((line.clip / "run.json").read_text())["weights_sha256"]


def test_a_run_is_evaluated_once(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scored: list[int] = []
    compute = IoUScore.compute_metrics
    monkeypatch.setattr(IoUScore, "compute_metrics",
                        lambda self, results: scored.append(len(results)) or compute(self, results))  # fmt: skip
    finetune(dataclasses.replace(load_run(line.run("segment")).config, out=tmp_path / "run"))
    assert scored == [json.loads((tmp_path / "run" / "run.json").read_text())["num_val_images"]]


def test_fine_tuning_starts_from_converted_weights_and_a_start_refused_late_can_be_corrected(
    line: Line, tmp_path: Path
) -> None:
    run_module("mobileclip_dense", "convert-weights", line.clip, "--model", "nano", "--out", tmp_path / "converted")
    config = dataclasses.replace(load_run(line.run("segment")).config, out=tmp_path / "run", max_iters=2)
    with pytest.raises(ValueError, match="not of encoder 'mci0'"):
        finetune(dataclasses.replace(config, encoder="mci0", init=str(line.clip)))
    finetune(dataclasses.replace(config, init=str(tmp_path / "converted"), learning_rate=0.0))
    name = "stages.2.blocks.0.mlp.fc1.weight"
    tuned, clip = load_run(config.out).weights, load_run(line.clip).weights
    assert torch.equal(tuned[f"backbone.encoder.trunk.{name}"], clip[f"visual.trunk.{name}"])


@pytest.mark.parametrize("task", ["segment", "depth"])
def test_a_killed_run_goes_on_from_its_checkpoint(line: Line, tmp_path: Path, task: str) -> None:
    out = tmp_path / "killed"
    data = line.scenes / ("ade" if task == "segment" else "nyu")
    command = ["mobileclip_dense", "finetune", f"nano-{task}", "--data", data, "--out", out, *SMALL_FINETUNE,
               "--max-iters", "30", "--checkpoint-every", "3"]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", *map(str, command)], cwd=REPOSITORY, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not checkpoint_file(out).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "run.json").exists()
    resumed = run_module(*command)
    assert "resuming" in resumed.stdout
    first = re.search(r"continuing at step (\d+)\n", resumed.stdout)
    assert first is not None and int(first[1]) >= 3
    assert [entry["step"] for entry in read_metrics(out)] == [10, 20, 30]


@pytest.mark.parametrize("damaged", ["last", "both"])
def test_fine_tuning_meets_a_damaged_checkpoint_in_words(
    line: Line, tmp_path: Path, capsys: pytest.CaptureFixture[str], damaged: str
) -> None:
    out = tmp_path / "run"
    shutil.copytree(line.run("segment"), out)
    (out / "run.json").unlink()
    config = dataclasses.replace(load_run(line.run("segment")).config, out=out)
    (out / "checkpoints" / "last.pt").write_bytes(b"")
    if damaged == "both":
        os.truncate(out / "checkpoints" / "previous.pt", 100_000)
        with pytest.raises(ValueError, match=r"last\.pt: checkpoint: the file is empty; .*previous\.pt: .*--force"):
            finetune(config)
        return
    finetune(config)
    assert load_run(out).record["metrics"]
    assert "last.pt: checkpoint: the file is empty; resuming from the checkpoint before it" in capsys.readouterr().err


@pytest.mark.parametrize("task", ["segment", "depth"])
def test_a_whole_dense_model_fuses_exactly(line: Line, task: str) -> None:
    model, _, _ = load_dense_run(line.run(task))
    for dtype, bound in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
        trained = randomize(model).to(dtype)
        fused = fuse_model(trained)
        image = torch.rand(1, 3, 64, 64, dtype=dtype)
        with torch.no_grad():
            assert relative_error(fused(image), trained(image)) <= bound
        assert not unfused_modules(fused)


HEAD_TYPES = {
    ("semantic_fpn", "segment"): "FPNHead", ("semantic_fpn", "depth"): "FPNDepthHead",
    ("fpn_lite", "segment"): "LiteFPNHead", ("fpn_lite", "depth"): "LiteFPNDepthHead",
    ("upernet", "segment"): "UPerHead", ("deconv", "depth"): "DeconvolutionDepthHead",
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in RECIPES if RECIPES[name]().task != "detect"])
def test_every_recipe_builds(name: str) -> None:
    recipe = RECIPES[name]()
    with torch.device("meta"):
        settings = model_config(recipe, 150)
    assert settings["backbone"]["name"] == recipe.encoder
    assert settings["decode_head"]["type"] == HEAD_TYPES[recipe.head, recipe.task]
    assert settings["type"] == ("EncoderDecoder" if recipe.task == "segment" else "DepthEstimator")


def test_mci2_with_semantic_fpn_has_the_known_size() -> None:
    from mmseg.registry import MODELS
    from mmseg.utils import register_all_modules

    register_all_modules()
    model = MODELS.build(model_config(RECIPES["mci2-fpn-ade20k"](), 150))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(39.2, abs=0.1)


def test_a_users_own_folder_without_class_names_trains(tmp_path: Path) -> None:
    data = write_labelled_folder(tmp_path / "own")
    run_module("mobileclip_dense", "finetune", "nano-segment", "--data", data, "--out", tmp_path / "run",
               *SMALL_FINETUNE, "--max-iters", "2")  # fmt: skip
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["class_names"] == ["class 0", "class 1", "class 2"]
    assert not record["reduce_zero_label"]


def test_a_stock_mmseg_config_uses_the_backbone(tmp_path: Path) -> None:
    """A user of mmsegmentation adds one import to a config of their own and runs mmengine's Runner."""
    data = write_labelled_folder(tmp_path / "own")
    (tmp_path / "config.py").write_text(f"""
custom_imports = dict(imports=["mobileclip_dense.dense"], allow_failed_imports=False)
default_scope = "mmseg"
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(type="SegDataPreProcessor", mean=[0, 0, 0], std=[255, 255, 255], bgr_to_rgb=True,
                           size=(64, 64)),
    backbone=dict(type="MCi", variant="nano", frozen_stages=1, drop_path_rate=0.1),
    decode_head=dict(type="SegformerHead", in_channels=[16, 32, 96, 192], in_index=[0, 1, 2, 3], channels=16,
                     num_classes=3, norm_cfg=dict(type="BN"),
                     loss_decode=dict(type="CrossEntropyLoss")),
    train_cfg=dict(), test_cfg=dict(mode="whole"))
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type="InfiniteSampler"),
    dataset=dict(type="BaseSegDataset", data_root={str(data)!r}, metainfo=dict(classes=("a", "b", "c")),
                 data_prefix=dict(img_path="images/training", seg_map_path="annotations/training"),
                 pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]))
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="BaseSegDataset", data_root={str(data)!r}, metainfo=dict(classes=("a", "b", "c")),
                 data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
                 pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]))
val_evaluator = [dict(type="IoUMetric", iou_metrics=["mIoU"]), dict(type="IoUScore", prefix="ours")]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=2, val_interval=10)
val_cfg = dict(type="ValLoop")
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-3),
                     constructor="LayerDecayConstructor", paramwise_cfg=dict(layer_decay=0.8))
log_level = "ERROR"
""")
    config = mmengine.Config.fromfile(tmp_path / "config.py")
    config.work_dir = str(tmp_path / "work")
    runner = Runner.from_cfg(config)
    trunk = runner.model.backbone.encoder.trunk
    frozen, before = (next(stage.parameters()).clone() for stage in (trunk.stages[0], trunk.stages[2]))
    runner.train()
    assert torch.equal(frozen, next(trunk.stages[0].parameters()))
    assert not torch.equal(before, next(trunk.stages[2].parameters()))
    metrics = runner.val_loop.run()
    assert metrics["ours/mIoU"] == pytest.approx(metrics["mIoU"], abs=0.006)  # mmseg rounds to two digits


def test_a_config_of_another_version_is_refused_by_field() -> None:
    with pytest.raises(ValueError, match="unknown fields colour"):
        config_from_json({"command": "finetune", "data": "x", "out": "y", "colour": 3}, Path("config.json"))
