"""The debug twins train two real steps through the real command line."""

import json
from pathlib import Path

import pytest

from mobileclip_dense.models.clip import clip_name
from mobileclip_dense.recipes.pretraining import RECIPES
from tests.conftest import Line, run_module


@pytest.mark.parametrize("name", RECIPES)
def test_every_pretraining_recipe_names_a_model(name: str) -> None:
    recipe = RECIPES[name]()
    assert clip_name(recipe.encoder).startswith("MobileCLIP")
    assert recipe.warmup_steps < recipe.steps


def test_mci2_pretrains_two_steps(line: Line, tmp_path: Path) -> None:
    run_module(
        "mobileclip_dense", "pretrain", "mci2-debug", "--data", line.scenes / "shards", "--out", tmp_path / "run"
    )
    assert json.loads((tmp_path / "run" / "run.json").read_text())["num_parameters"] > 90e6


def test_mci2_fine_tunes_two_steps(line: Line, tmp_path: Path) -> None:
    run_module("mobileclip_dense", "finetune", "mci2-segment-debug", "--data", line.scenes / "ade", "--out",
               tmp_path / "run")  # fmt: skip
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["class_names"][:3] == ["floor", "wall", "sky"]
    assert 0 <= record["metrics"]["mIoU"] <= 100
