"""Every recipe names a model; the debug twins train two real steps through the real command line."""

import json
import shutil
from pathlib import Path

import pytest

from mobileclip_dense.__main__ import run_named
from mobileclip_dense.models.clip import clip_name
from mobileclip_dense.recipes import finetuning
from mobileclip_dense.recipes.pretraining import RECIPES
from tests.conftest import Line

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
    run_named("pretrain", [name, "--data", str(data), "--out", str(out)])
    record = json.loads((out / "run.json").read_text())
    assert record["num_parameters"] == pytest.approx(PARAMETERS[recipe.model], rel=0.01)
    shutil.rmtree(out)  # more than a gigabyte


# One for each task, each kind of encoder and each head but those that other tests train; a Swin-L takes 8 GB.
@pytest.mark.parametrize(
    ("name", "data", "millions"),
    [("mci2-fpn-ade20k", "ade", 39.1), ("mci1-uper-ade20k", "ade", 51), ("vit-b16-deconv-nyuv2", "nyu", 87)],
)
def test_a_dense_twin_trains_two_steps(line: Line, tmp_path: Path, name: str, data: str, millions: float) -> None:
    out = tmp_path / "run"
    arguments = [f"{name}-debug", "--data", str(line.scenes / data), "--out", str(out)]
    run_named("finetune", arguments)
    record = json.loads((out / "run.json").read_text())
    assert record["num_parameters"] / 1e6 == pytest.approx(millions, rel=0.03)
    assert record["metrics"]["mIoU" if data == "ade" else "rmse"] >= 0
    shutil.rmtree(out)


def test_every_published_recipe_has_a_twin_that_differs_in_size_alone() -> None:
    published = [name for name in finetuning.RECIPES if f"{name}-debug" in finetuning.RECIPES]
    assert len(published) == len(finetuning.RECIPES) - len(published) - 5  # five for a laptop have none
    for name in published:
        recipe, twin = finetuning.RECIPES[name](), finetuning.RECIPES[f"{name}-debug"]()
        assert twin.max_iters == 2
        for field in ("task", "encoder", "head", "head_channels", "layer_decay", "drop_path_rate", "poly_power"):
            assert getattr(twin, field) == getattr(recipe, field)
        assert f" finetune {name} " in (finetuning.RECIPES[name].__doc__ or "")
