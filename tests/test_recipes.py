"""Every recipe names a model; the debug twins train two real steps through the real command line."""

import json
import shutil
from pathlib import Path

import pytest

from mobileclip_dense.__main__ import COMMANDS
from mobileclip_dense.models.clip import clip_name
from mobileclip_dense.recipes.pretraining import RECIPES
from tests.conftest import Line, run_module

PARAMETERS = {"mci2": 99.2e6, "ViT-B-16": 149.6e6}  # both towers


@pytest.mark.parametrize("name", RECIPES)
def test_every_pretraining_recipe_names_a_model(name: str) -> None:
    recipe = RECIPES[name]()
    assert clip_name(recipe.model) in ("MobileCLIP-nano", "MobileCLIP-S2", "ViT-B-16")
    assert recipe.warmup_steps < recipe.steps
    if not name.endswith("-debug") and name != "nano-reinforced":  # reinforcement.json tells those
        assert bool(recipe.teacher_dims) == (recipe.distillation_weight > 0)


# The twins for DataCompDR-12M differ from those for -1B in two weights; each takes a gigabyte and half a minute.
@pytest.mark.parametrize("name", [n for n in RECIPES if n.endswith("-debug") and "datacompdr12m" not in n])
def test_a_pretraining_twin_trains_two_steps(line: Line, tmp_path: Path, name: str) -> None:
    out, recipe = tmp_path / "run", RECIPES[name]()
    data = line.reinforced if recipe.distillation_weight else line.scenes / "shards"
    COMMANDS["pretrain"][0]([name, "--data", str(data), "--out", str(out)], "mobileclip-dense pretrain")
    record = json.loads((out / "run.json").read_text())
    assert record["num_parameters"] == pytest.approx(PARAMETERS[recipe.model], rel=0.01)
    shutil.rmtree(out)  # more than a gigabyte


def test_mci2_fine_tunes_two_steps(line: Line, tmp_path: Path) -> None:
    run_module("mobileclip_dense", "finetune", "mci2-fpn-ade20k-debug", "--data", line.scenes / "ade", "--out",
               tmp_path / "run")  # fmt: skip
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["class_names"][:3] == ["floor", "wall", "sky"]
    assert 0 <= record["metrics"]["mIoU"] <= 100
