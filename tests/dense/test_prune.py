"""The prune command on real runs: the folder that it writes, its uses, and what is refused."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

from mobileclip_dense.config import PruneConfig
from mobileclip_dense.config.export import ToCoreMLConfig, ToOnnxConfig
from mobileclip_dense.dense.model import load_dense_run
from mobileclip_dense.dense.prune import prune
from mobileclip_dense.dense.training.train import finetune
from mobileclip_dense.deploy.coreml.exporter import to_coreml
from mobileclip_dense.deploy.onnx.exporter import to_onnx
from mobileclip_dense.models.prunable import find_units
from mobileclip_dense.models.prune import count_macs, count_params, search_target
from mobileclip_dense.models.structure import structure_of
from mobileclip_dense.run.folder import load_run
from tests.conftest import SMALL_FINETUNE, Line, run_module
from tests.models.test_prune import predict


@pytest.fixture(scope="module")
def pruned_run(line: Line, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The line's segmentation run at 70 % of its parameters, through the real command line."""
    out = tmp_path_factory.mktemp("pruned") / "run"
    text = run_module("mobileclip_dense", "prune", line.run("segment"), "--out", out, "--target-params", "0.7").stdout
    for label in ("MLP, hidden channels", "attention heads", "neck (FPN)", "parameters", "mIoU"):
        assert label in text
    return out


def test_a_pruned_run_reloads_from_its_folder_alone(line: Line, pruned_run: Path, tmp_path: Path) -> None:
    shutil.copytree(pruned_run, tmp_path / "alone")
    model, run, config = load_dense_run(tmp_path / "alone")
    parent, parent_run, _ = load_dense_run(line.run("segment"))
    whole = count_params(parent)
    expected, _ = search_target(
        parent, find_units(parent, parent_run.config.head), lambda m: count_params(m) / whole, 0.7
    )
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(predict(model, image), predict(expected, image))
    record = run.record["pruned"]
    assert record["share_params"] == count_params(model) / whole <= 0.7
    assert record["macs_after"] == count_macs(model, config.crop_size_px)
    assert record["macs_before"] == count_macs(parent, config.crop_size_px)
    assert run.record["parent"]["weights_sha256"] == parent_run.record["weights_sha256"]
    assert run.record["metrics"].keys() == parent_run.record["metrics"].keys()


def test_a_pruned_run_exports(pruned_run: Path, tmp_path: Path) -> None:
    (onnx,) = to_onnx(ToOnnxConfig(run=pruned_run, out=tmp_path))
    parity = json.loads((onnx / "artifact.json").read_text())["parity"]
    assert parity["fp32_relative_error"] <= 1e-4
    to_coreml(ToCoreMLConfig(run=pruned_run, out=tmp_path, allow_accuracy_drop=True))


def test_fine_tuning_goes_on_from_the_whole_pruned_model(line: Line, pruned_run: Path, tmp_path: Path) -> None:
    command = ["mobileclip_dense", "finetune", "nano-segment", "--data", line.scenes / "ade", "--init", pruned_run]
    steps = [*SMALL_FINETUNE, "--max-iters", "2"]
    _, _, config = load_dense_run(pruned_run)
    finetune(dataclasses.replace(config, init=str(pruned_run), out=tmp_path / "still", max_iters=2, learning_rate=0.0))
    before, after = load_run(pruned_run), load_run(tmp_path / "still")
    assert after.structure == before.structure
    for name, tensor in before.weights.items():
        if "running_" not in name and "num_batches" not in name:
            assert torch.equal(after.weights[name], tensor), name
    run_module(*command, "--out", tmp_path / "moved", *steps)
    model, run, _ = load_dense_run(tmp_path / "moved")
    assert structure_of(model) == structure_of(load_dense_run(pruned_run)[0])
    assert run.record["parent"]["path"] == str(pruned_run)
    assert not torch.equal(run.weights["decode_head.conv_seg.weight"], before.weights["decode_head.conv_seg.weight"])
    prune(PruneConfig(run=tmp_path / "moved", out=tmp_path / "again", target_params=0.9))
    assert count_params(load_dense_run(tmp_path / "again")[0]) <= 0.9 * count_params(model)


def test_a_depth_run_is_pruned_to_its_multiply_accumulates(line: Line, tmp_path: Path) -> None:
    prune(PruneConfig(run=line.run("depth"), out=tmp_path / "depth", target_macs=0.7))
    model, run, config = load_dense_run(tmp_path / "depth")
    whole, _, _ = load_dense_run(line.run("depth"))
    share = count_macs(model, config.crop_size_px) / count_macs(whole, config.crop_size_px)
    assert 0.675 <= share == run.record["pruned"]["share_macs"] <= 0.7
    assert "rmse" in run.record["metrics"]


def test_a_pruned_start_that_does_not_fit_is_refused(line: Line, pruned_run: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\n".join(f"thing {index}" for index in range(20)))
    _, _, config = load_dense_run(pruned_run)
    again = dataclasses.replace(config, init=str(pruned_run), out=tmp_path / "run")
    for changes, message in (
        ({"neck_channels": 64}, "neck_channels: found a pruned run with 48, expected 64"),
        ({"head_channels": 64}, "head_channels: found a pruned run with 32, expected 64"),
        ({"encoder": "mci0"}, "encoder: found a pruned run with nano, expected mci0"),
        ({"task": "depth", "data": line.scenes / "nyu"}, "task: found a pruned run with segment, expected depth"),
        ({"class_names": tmp_path / "names.txt"}, "classes: found a pruned run with 14"),
    ):
        with pytest.raises(ValueError, match=message):
            finetune(dataclasses.replace(again, **changes))
    assert not (tmp_path / "run").exists()


def test_pruning_refuses_what_it_cannot_do(line: Line, pruned_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="pretraining run"):
        prune(PruneConfig(run=line.clip, out=out, target_params=0.7))
    with pytest.raises(FileExistsError, match="--force"):
        prune(PruneConfig(run=line.run("segment"), out=pruned_run, target_params=0.7))
    with pytest.raises(FileExistsError, match="it is the run itself"):
        prune(PruneConfig(run=pruned_run, out=pruned_run, target_params=0.7, force=True))
    with pytest.raises(ValueError, match=r"target: found .*, expected at least"):
        prune(PruneConfig(run=line.run("segment"), out=out, target_params=0.1))
    assert not out.exists()


def test_an_altered_or_lost_structure_is_noticed(pruned_run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(pruned_run, tmp_path / "copy")
    (folder / "structure.json").write_text("{}")
    with pytest.raises(ValueError, match=r"structure\.json: sha256"):
        load_dense_run(folder)
    (folder / "structure.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"structure\.json: no such file"):
        load_dense_run(folder)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ({}, "found neither, expected one"),
        ({"target_params": 0.5, "target_macs": 0.5}, "found both, expected one"),
        ({"target_params": 0.0}, "--target-params: found 0.0, expected above 0"),
        ({"target_macs": 1.0}, "--target-macs: found 1.0, expected below 1"),
    ],
)
def test_one_target_between_0_and_1_is_wanted(targets: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PruneConfig(run=Path("run"), out=Path("out"), **targets)
