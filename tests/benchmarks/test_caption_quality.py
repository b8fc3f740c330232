"""The caption-quality benchmark: its plan, resuming, the supervised baseline, and the whole at the smallest size."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.caption_quality import lanes as lanes
from benchmarks.caption_quality import plan as plans
from benchmarks.caption_quality import supervised as rival
from benchmarks.caption_quality.caption_quality import CaptionQualityConfig, measure_caption_quality
from benchmarks.caption_quality.plan import CPU, PROTOCOLS, Step, check_settings, settings_of, steps
from mobileclip_dense.artifact.files import read_json, sha256_of, write_json
from mobileclip_dense.config import PretrainConfig, ScenesConfig
from mobileclip_dense.data.scenes.writer import write_scenes
from mobileclip_dense.models.encoders import Encoder
from mobileclip_dense.models.weights import load_encoder_weights
from mobileclip_dense.run.folder import read_safetensors
from mobileclip_dense.run.training_log import read_metrics

SMALLEST = dataclasses.replace(
    CPU, size_px=32, num_images=16, num_labelled=16, num_shards=(1,), seeds=(0, 1),
    pretrain=dataclasses.replace(CPU.pretrain, image_size_px=32, batch_size=4, steps=2, warmup_steps=1),
    finetune=dataclasses.replace(CPU.finetune, crop_size_px=(32, 32), batch_size=2, max_iters=2, warmup_iters=1,
                                 max_train_images=4),
)  # fmt: skip


class InThisProcess:
    """A lane without its own process: submitted calls run immediately."""

    def __init__(self, *_: object, **__: object):
        pass

    def __enter__(self) -> "InThisProcess":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, call: Callable[..., bool], *arguments: Any) -> Future[bool]:
        future: Future[bool] = Future()
        try:
            future.set_result(call(*arguments))
        except Exception as error:  # like a pool, which stores any error for `result()`
            future.set_exception(error)
        return future


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "ProcessPoolExecutor", InThisProcess)


def pretend(step: Step) -> None:
    """Write the files of a complete step."""
    if step.kind == "scenes":
        write_json(step.folder / "scenes.json", settings_of(step))
    else:
        write_json(step.folder / "config.json", settings_of(step))
        write_json(step.folder / "run.json", {})


@pytest.mark.parametrize("preset", PROTOCOLS)
def test_the_plan_has_every_arm_for_every_seed_and_can_be_run_in_its_order(preset: str) -> None:
    protocol = PROTOCOLS[preset]
    plan = steps(protocol, Path("out"))
    names = [step.name for step in plan]
    assert len(set(names)) == len(names)
    assert all(set(step.after) <= set(names[:index]) for index, step in enumerate(plan))
    assert len(protocol.seeds) >= 3
    assert protocol.num_shards[0] >= protocol.pretrain.num_workers  # every loader process reads shards of its own
    largest = protocol.num_pairs[-1]
    for seed in protocol.seeds:
        arms = [f"clip-{quality}-{largest}-{seed}" for quality in ("alt", "clean", "reinforced")]
        for start in (*arms, f"supervised-{seed}", f"scratch-{seed}"):
            assert {f"{task}-{way}-{start}" for task in ("segment", "depth") for way in ("finetune", "probe")} <= {
                *names
            }
        for number in protocol.num_pairs:
            for quality in ("alt", "reinforced"):
                assert f"segment-finetune-clip-{quality}-{number}-{seed}" in names


def test_all_pretrainings_differ_in_nothing_but_captions_size_and_seed() -> None:
    pretrainings = [step for step in steps(CPU, Path("out")) if step.kind in ("clip", "supervised")]
    differing = ("data", "val_data", "out", "seed")
    assert {tuple((k, v) for k, v in dataclasses.asdict(step.config).items() if k not in differing)
            for step in pretrainings} == {tuple((k, v) for k, v in dataclasses.asdict(CPU.pretrain).items()
                                                if k not in differing)}  # fmt: skip
    scenes = [step.config for step in steps(CPU, Path("out")) if step.kind == "scenes"]
    by_name = {config.out.name: config for config in scenes if isinstance(config, ScenesConfig)}
    assert {(by_name[q].seed, by_name[q].num_images) for q in ("alt", "clean", "reinforced")} == {(0, CPU.num_images)}
    assert by_name["labelled"].seed != 0
    assert by_name["clean"].num_images * 7 // 8 >= CPU.num_pairs[-1]


def test_an_interrupted_plan_goes_on_and_repeats_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_this_process: None
) -> None:
    plan, made = steps(SMALLEST, tmp_path), list[str]()

    def make(step: Step) -> None:
        if len(made) == 7 and "killed" not in made:
            made.append("killed")
            raise lanes.StoppedError
        made.append(step.name)
        pretend(step)

    monkeypatch.setattr(lanes, "_make", make)
    assert not lanes.run_plan(plan, tmp_path / "logs", lanes=2, threads=1)
    assert made[-1] == "killed"
    assert lanes.run_plan(plan, tmp_path / "logs", lanes=2, threads=1)
    assert sorted(made) == sorted(["killed", *(step.name for step in plan)])
    assert lanes.run_plan(plan, tmp_path / "logs", lanes=2, threads=1)
    assert len(made) == len(plan) + 1
    assert not lanes.run_plan([dataclasses.replace(plan[0], config=dataclasses.replace(plan[0].config,
                              out=tmp_path / "new"))], tmp_path / "logs", lanes=2, threads=1, stop_at=0)  # fmt: skip


def test_a_folder_made_with_other_settings_is_refused_and_a_moved_one_is_not(tmp_path: Path) -> None:
    for step in steps(SMALLEST, tmp_path / "a"):
        pretend(step)
    (tmp_path / "a").rename(tmp_path / "b")
    for step in steps(SMALLEST, tmp_path / "b"):
        check_settings(step)
    first = next(step for step in steps(SMALLEST, tmp_path / "b") if step.kind == "clip")
    assert settings_of(first)["data"] == ["scenes/alt/shards/train/{00000..00000}.tar"]
    longer = dataclasses.replace(SMALLEST, pretrain=dataclasses.replace(SMALLEST.pretrain, steps=3))
    with pytest.raises(ValueError, match=r"clip-alt-100-0: made with other settings \(steps: 2 instead of 3\)"):
        lanes.run_plan(steps(longer, tmp_path / "b"), tmp_path / "logs", lanes=2, threads=1)


def test_a_step_that_fails_is_named_with_the_end_of_its_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_this_process: None
) -> None:
    def make(step: Step) -> None:
        print("drawing the first scene")
        raise ValueError("no space left")

    monkeypatch.setattr(lanes, "_make", make)
    with pytest.raises(ValueError, match=r"scenes-alt failed: no space left; .*\n.*drawing the first scene"):
        lanes.run_plan(steps(SMALLEST, tmp_path), tmp_path / "logs", lanes=1, threads=1)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rival") / "scenes"
    write_scenes(ScenesConfig(out=folder, num_images=16, size_px=32, caption_quality="clean"))
    return folder


def rival_config(scenes: Path, out: Path, **settings: Any) -> PretrainConfig:
    data = (str(scenes / "shards"),)
    return dataclasses.replace(SMALLEST.pretrain, data=data, out=out, batch_size=7, crop_scale_min=1.0, **settings)


def test_the_rival_learns_the_tags_of_a_handful_of_scenes_and_its_weights_load(scenes: Path, tmp_path: Path) -> None:
    rival.pretrain_supervised(rival_config(scenes, tmp_path, steps=40, warmup_steps=4, learning_rate=5e-3), scenes)
    tags = rival.read_tags(scenes / "coco" / "annotations" / "instances_train2017.json")
    rates = torch.stack([*tags.of_key.values()]).mean(0)
    of_the_rates = float(torch.nn.functional.binary_cross_entropy(rates, rates))  # the loss without looking at images
    assert read_metrics(tmp_path)[-1]["loss"] < of_the_rates / 2
    encoder = Encoder("nano")
    load_encoder_weights(encoder, tmp_path / "weights.safetensors")
    weights = read_safetensors(tmp_path / "weights.safetensors")
    assert len(encoder.trunk.state_dict()) > 50
    for name, tensor in encoder.trunk.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    assert 0 < read_json(tmp_path / "run.json")["metrics"]["tag_map_percent"] <= 100


def test_tags_are_the_kinds_that_were_annotated(scenes: Path) -> None:
    path = scenes / "coco" / "annotations" / "instances_train2017.json"
    tags, coco = rival.read_tags(path), json.loads(path.read_text())
    assert len(tags.of_key) == 14  # two of sixteen are held out
    names = {category["id"]: category["name"] for category in coco["categories"]}
    for image in coco["images"]:
        expected = {names[a["category_id"]] for a in coco["annotations"] if a["image_id"] == image["id"]}
        vector = tags.of_key[f"{image['id']:09d}"]
        assert {kind for kind, there in zip(tags.kinds, vector, strict=True) if there} == expected


def test_an_interrupted_rival_ends_with_the_same_weights(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = [rival_config(scenes, tmp_path / name, steps=4, checkpoint_every=2) for name in ("whole", "cut")]
    rival.pretrain_supervised(configs[0], scenes)
    step = rival._step

    def cut(*arguments: Any) -> float:
        if arguments[-2] == 3:
            raise lanes.StoppedError
        return step(*arguments)

    monkeypatch.setattr(rival, "_step", cut)
    with pytest.raises(lanes.StoppedError):
        rival.pretrain_supervised(configs[1], scenes)
    assert not (configs[1].out / "run.json").exists()
    monkeypatch.setattr(rival, "_step", step)
    rival.pretrain_supervised(configs[1], scenes)
    assert len({sha256_of(config.out / "weights.safetensors") for config in configs}) == 1


def test_the_whole_benchmark_writes_its_page_and_its_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_this_process: None
) -> None:
    """Each kind of step runs once; the other steps of its kind are copies with other figures."""
    monkeypatch.setitem(plans.PROTOCOLS, "cpu", SMALLEST)
    made: dict[tuple[Any, ...], Step] = {}
    make = lanes._make

    def make_or_copy(step: Step) -> None:
        kind = (step.kind, getattr(step.config, "task", ""), getattr(step.config, "head", step.name))
        if step.kind in ("clip", "supervised"):
            kind = (step.kind,)
        if kind not in made:
            make(step)
            made[kind] = step
            return
        shutil.copytree(made[kind].folder, step.folder)
        record, changed = read_json(step.folder / "run.json"), 1 + 0.01 * len(step.name) + 0.02 * step.config.seed
        record["metrics"] = {name: value * changed for name, value in record["metrics"].items()}
        record["seed"] = step.config.seed
        if step.kind == "finetune" and (init := step.config.init) is not None:
            folder = Path(init) if Path(init).is_dir() else Path(init).parent
            record["parent"] = {"weights_sha256": read_json(folder / "run.json")["weights_sha256"]}
        write_json(step.folder / "config.json", settings_of(step))
        write_json(step.folder / "run.json", record)

    monkeypatch.setattr(lanes, "_make", make_or_copy)
    measure_caption_quality(CaptionQualityConfig(out=tmp_path))
    page = (tmp_path / "cpu" / "caption-quality-cpu.html").read_text()
    result = read_json(tmp_path / "cpu" / "caption-quality-cpu.json")
    assert str(tmp_path) not in json.dumps(result) + page
    assert "http" not in page.replace("http://www.w3.org", "")  # self-contained
    assert page.count("data:image/svg+xml") == 6
    assert {claim["verdict"] for claim in result["claims"]} <= {"supported", "not supported", "not testable"}
    assert len(result["claims"]) == 6
    assert all(claim["claim"] in page for claim in result["claims"])
    run = result["runs"]["depth-probe-clip-clean-100-1"]
    assert run["settings"]["head"] == "linear"
    assert run["settings"]["frozen_stages"] == 4
    assert len(run["weights_sha256"]) == 64
    clean = result["arms"]["probe"]["clean"]["depth"]
    assert clean["values"][1] == run["metrics"]["rmse"]
    # If a pretraining is repeated, the runs trained from it are outdated.
    parent = tmp_path / "cpu" / "runs" / "clip-alt-100-0" / "run.json"
    write_json(parent, read_json(parent) | {"weights_sha256": "0" * 64})
    with pytest.raises(ValueError, match="which was trained again"):
        measure_caption_quality(CaptionQualityConfig(out=tmp_path))
