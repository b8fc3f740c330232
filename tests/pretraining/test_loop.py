"""The trainer through the real command line: resuming, signals, several processes, distillation."""

import dataclasses
import functools
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from lightning.fabric import Fabric
from PIL import Image
from safetensors.torch import load_file

from mobileclip_dense.__main__ import run_named
from mobileclip_dense.config import PretrainConfig
from mobileclip_dense.data.captioned.stream import Batch
from mobileclip_dense.pretraining import checkpoint, loop
from mobileclip_dense.pretraining.loop import pretrain
from mobileclip_dense.pretraining.losses import Losses
from mobileclip_dense.pretraining.teaching import find_teaching
from mobileclip_dense.recipes.pretraining import nano_reinforced, nano_scenes
from mobileclip_dense.run.checkpoints import load_checkpoint
from mobileclip_dense.run.training_log import read_metrics
from tests.conftest import REPOSITORY, SMALL_PRETRAIN, Line, run_module
from tests.data.shards import write_shard

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def small(line: Line, out: Path, **changes: object) -> PretrainConfig:
    """The settings of SMALL_PRETRAIN, for runs inside the test's own process."""
    settings = dict(data=(str(line.scenes / "shards"),), out=out, image_size_px=32, batch_size=8, steps=4,
                    warmup_steps=1, checkpoint_every=2, num_workers=0)  # fmt: skip
    return dataclasses.replace(nano_scenes(), **settings | changes)


def distilling(line: Line, out: Path, **changes: object) -> PretrainConfig:
    weights = {name: getattr(nano_reinforced(), name) for name in ("contrastive_weight", "distillation_weight")}
    return small(line, out, **{"data": (str(line.reinforced),), **weights, **changes})


def run_here(arguments: list[object]) -> None:
    """Run the command in this process with the number of threads of `start`, because it affects rounding."""
    torch.set_num_threads(1)
    run_named("pretrain", [str(argument) for argument in arguments])


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "mobileclip_dense", "pretrain", *map(str, arguments)]
    return subprocess.Popen(command, cwd=REPOSITORY, env=ONE_THREAD, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                            text=True)  # fmt: skip


def wait_for_checkpoint(run: Path) -> None:
    deadline = time.monotonic() + 120
    while not (run / "checkpoints" / "last.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (run / "checkpoints" / "last.pt").exists()


def assert_same_run(found: Path, expected: Path) -> None:
    ours, theirs = (load_file(folder / "weights.safetensors") for folder in (found, expected))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    losses = [[line["loss"] for line in read_metrics(folder)] for folder in (found, expected)]
    assert losses[0] == losses[1]
    assert losses[0]


def test_a_run_folder_explains_itself(line: Line) -> None:
    record = json.loads((line.clip / "run.json").read_text())
    assert "pretrain nano-scenes" in record["command"]
    assert record["versions"]["torch"] == torch.__version__.split("+")[0]
    assert record["metrics"]["num_pairs"] == 6
    assert record["skipped_samples"] == {}
    config = json.loads((line.clip / "config.json").read_text())
    assert config["model"] == "nano"
    assert config["steps"] == 4


def test_stock_open_clip_loads_a_run_with_its_preprocessing(line: Line) -> None:
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{line.clip}")
    ours = load_file(line.clip / "weights.safetensors")
    assert all(torch.equal(tensor, ours[name]) for name, tensor in model.state_dict().items())
    assert model.visual.image_size == (32, 32)
    assert "mean=[0.0, 0.0, 0.0], std=[1.0, 1.0, 1.0]" in str(transform)


def test_a_killed_run_goes_on_and_ends_with_the_same_weights(
    line: Line, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With everything stateful: distillation, two passes, random sources, a moving average, a loader worker."""
    out = tmp_path / "killed"
    flags = ["nano-reinforced", "--data", line.reinforced, line.reinforced, "--data-weights", "1", "2", "--out", out,
             *SMALL_PRETRAIN, "--steps", "12", "--checkpoint-every", "2", "--accumulate", "2", "--ema-decay", "0.5",
             "--num-workers", "2", "--shuffle-block", "20"]  # fmt: skip
    process = start(*flags)
    wait_for_checkpoint(out)
    process.kill()
    process.communicate()
    assert not (out / "run.json").exists()
    capsys.readouterr()
    run_here(flags)
    assert "resuming" in capsys.readouterr().out
    whole = tmp_path / "whole"
    run_here([whole if part == out else part for part in flags])
    assert_same_run(out, whole)


@pytest.mark.parametrize("damaged", ["last", "both", "another model"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_gives_the_same_weights(
    line: Line, tmp_path: Path, capsys: pytest.CaptureFixture[str], damaged: str
) -> None:
    out = tmp_path / "run"
    shutil.copytree(line.clip, out)
    (out / "run.json").unlink()
    last, previous = (out / "checkpoints" / name for name in ("last.pt", "previous.pt"))
    torch.set_num_threads(1)
    if damaged == "another model":
        state = load_checkpoint(last)
        state["model"].pop("logit_scale")
        torch.save(state, last)
        with pytest.raises(ValueError, match=r"last\.pt: checkpoint: does not fit this run \(.*--force"):
            pretrain(small(line, out))
        return
    os.truncate(last, 100_000)
    if damaged == "both":
        previous.write_bytes(bytes(100_000))
        with pytest.raises(ValueError, match=r"last\.pt: checkpoint: the file is damaged .*previous\.pt: .*--force"):
            pretrain(small(line, out))
        return
    pretrain(small(line, out))
    assert "last.pt: checkpoint: the file is damaged or cut short" in capsys.readouterr().err
    ours, theirs = (load_file(folder / "weights.safetensors") for folder in (out, line.clip))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_sigterm_saves_and_the_run_goes_on_from_there(line: Line, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start("nano-scenes", "--data", line.scenes / "shards", "--out", out, *SMALL_PRETRAIN, "--steps", "5000",
                    "--checkpoint-every", "1")  # fmt: skip
    wait_for_checkpoint(out)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    step = load_checkpoint(out / "checkpoints" / "last.pt")["step"]
    assert f"SIGTERM: step {step} of 5000 is saved; repeat the command to resume" in said
    assert not (out / "run.json").exists()


def test_data_without_held_out_pairs_trains_and_says_so(
    line: Line, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder of shards without val/, as published data sets and `join` have it."""
    pretrain(small(line, tmp_path / "run", data=(str(line.scenes / "shards" / "train"),), steps=1))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["metrics"] == {}
    assert "not measured, no held-out data (--val-data)" in capsys.readouterr().out


def test_what_is_held_out_is_opened_before_a_run_begins(line: Line, tmp_path: Path) -> None:
    write_shard(tmp_path / "pairs" / "val" / "0.tar", {"a": {"jpg": b"no picture", "txt": b"x"}})
    (tmp_path / "images" / "red").mkdir(parents=True)
    (tmp_path / "images" / "red" / "0.jpg").write_bytes(b"no picture")
    for settings, said in (
        (
            dict(val_data=str(tmp_path / "pairs")),
            r"held-out pairs: found no usable sample .* \(bad: 1 image\)",
        ),
        (dict(zeroshot_data=tmp_path / "images"), r"1 of 1 cannot be used:\n.*red/0\.jpg"),
    ):
        with pytest.raises(ValueError, match=said):
            pretrain(small(line, tmp_path / "run", **settings))
        assert not (tmp_path / "run").exists()


def test_one_bad_file_among_the_zeroshot_images_is_left_out(line: Line, tmp_path: Path) -> None:
    images = tmp_path / "images"
    for name in ("cone", "cube"):
        (images / name).mkdir(parents=True)
        Image.new("RGB", (40, 32), "red").save(images / name / "0.jpg")
    (images / "cone" / "1.jpg").write_bytes(b"no picture")
    pretrain(small(line, tmp_path / "run", steps=1, zeroshot_data=images))
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["metrics"]["num_images"], record["metrics"]["num_skipped_images"]) == (2, 1)
    assert record["not_measured"] == {}


def test_what_breaks_while_a_run_trains_costs_its_figure_alone(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run is saved and names what is missing. After a repair, it can be measured without training again."""
    images, run = tmp_path / "images" / "cone", tmp_path / "run"
    images.mkdir(parents=True)
    Image.new("RGB", (40, 32), "red").save(images / "0.jpg")
    honest = loop._step

    def breaking(training: loop.Training, batch: Batch) -> tuple[Losses, torch.Tensor]:
        (images / "0.jpg").write_bytes(b"no picture")
        return honest(training, batch)

    monkeypatch.setattr(loop, "_step", breaking)
    settings = dict(steps=2, evaluate_every=1)
    with pytest.raises(
        ValueError, match=r"complete and saved, but not measured: zero-shot \([^$]*0\.jpg: image: not an"
    ):
        pretrain(small(line, run, zeroshot_data=images.parent, **settings))
    record = json.loads((run / "run.json").read_text())
    assert record["metrics"]["num_pairs"] == 6
    assert "0.jpg" in record["not_measured"]["zero-shot"]
    assert "step 1: not measured: zero-shot" in capsys.readouterr().err
    weights = (run / "weights.safetensors").read_bytes()
    (run / "run.json").unlink()
    (tmp_path / "images" / "cone").rename(tmp_path / "cone")
    other = tmp_path / "other" / "cone"
    other.mkdir(parents=True)
    Image.new("RGB", (40, 32), "red").save(other / "0.jpg")
    monkeypatch.setattr(loop, "_step", None)  # no step is taken
    pretrain(small(line, run, zeroshot_data=other.parent, **settings))
    assert json.loads((run / "run.json").read_text())["metrics"]["num_images"] == 1
    assert (run / "weights.safetensors").read_bytes() == weights


def test_a_complete_run_is_not_overwritten(line: Line) -> None:
    before = (line.clip / "weights.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match="this run is complete"):
        pretrain(small(line, line.clip))
    assert (line.clip / "weights.safetensors").read_bytes() == before


def test_torchrun_trains_one_run_with_two_processes(line: Line, tmp_path: Path) -> None:
    """DDP over gloo: one set of files; the loss covers the pairs of both, starting near their ln; no thread remains."""
    scenes, out = tmp_path / "scenes", tmp_path / "two"
    run_module("mobileclip_dense", "scenes", "--out", scenes, "--num-images", 320, "--size-px", 32)
    run_module("torch.distributed.run", "--nproc-per-node", 2, "--master-port", 29641, "-m", "tests.process_exit",
               "pretrain", "nano-scenes", "--data", scenes / "shards", "--out", out, *SMALL_PRETRAIN, "--steps", 10,
               "--evaluate-every", 5, "--zeroshot-data", scenes / "classify" / "val")  # fmt: skip
    metrics = json.loads((out / "run.json").read_text())["metrics"]
    assert metrics["num_pairs"] == 40
    on_the_way, logged = read_metrics(out)
    assert on_the_way["step"] == 5
    assert on_the_way["num_classes"] == metrics["num_classes"]
    assert 1.5 < logged["loss"] < 4.5
    assert len(load_checkpoint(out / "checkpoints" / "last.pt")["processes"]) == 2


def test_teachers_run_in_every_step_at_their_own_size(line: Line, tmp_path: Path, vit_teacher: str) -> None:
    config = distilling(line, tmp_path / "run", data=(str(line.scenes / "shards"),), steps=10,
                        teachers=(str(line.clip), vit_teacher), teacher_temperatures=(20.0, 50.0))  # fmt: skip
    pretrain(config)
    logged = read_metrics(tmp_path / "run")[-1]
    assert logged["loss"] == pytest.approx(0.25 * logged["contrastive"] + 0.75 * logged["distillation"], rel=1e-5)
    teaching = find_teaching(config)
    assert teaching is not None
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    captions = ["a red sphere", "two cones", "IMG_1.jpg"]
    batch = Batch(images, torch.zeros(3, 48), None, None, None, None, (captions,), ["a", "b", "c"], {})
    _, found = teaching.features(batch, images)
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{vit_teacher}")
    with torch.no_grad():
        shown = [Image.fromarray(image.permute(1, 2, 0).numpy()).resize((48, 48), Image.Resampling.BICUBIC)
                 for image in images]  # fmt: skip
        expected = model.eval().encode_image(torch.stack([transform(image) for image in shown]), normalize=True)
        words = model.encode_text(open_clip.get_tokenizer(f"local-dir:{vit_teacher}")(captions), normalize=True)
    torch.testing.assert_close(found.image, expected, atol=0.02, rtol=0)  # the resize rounds to grey levels in both
    torch.testing.assert_close(found.texts[0], words)
    assert found.logit_scale == 50.0
    _, in_parts = teaching.features(batch, images, num_parts=2)
    torch.testing.assert_close((in_parts.image, in_parts.texts), (found.image, found.texts))
    assert not in_parts.image.is_inference()
    assert not found.texts[0].is_inference()


def test_compiled_towers_train_to_the_same_weights(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In two passes, with recomputed blocks; traced, but without a minute of code generation."""
    compiled = functools.partial(torch.compile, backend="aot_eager")
    wrapped = list[torch.nn.Module]()
    monkeypatch.setattr(torch, "compile", lambda module, **how: wrapped.append(module) or compiled(module, **how))
    settings = dict(steps=2, accumulate=2, grad_checkpointing=True)
    for name in ("eager", "compiled"):
        pretrain(small(line, tmp_path / name, compile=name == "compiled", **settings))
    assert wrapped
    found, expected = (load_file(tmp_path / name / "weights.safetensors") for name in ("compiled", "eager"))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


def test_the_moving_average_is_what_is_saved(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "visual.trunk.stem.0.conv_kxk.0.conv.weight"
    honest, seen = loop._step, list[torch.Tensor]()

    def noting(training: loop.Training, batch: Batch) -> tuple[Losses, torch.Tensor]:
        seen.append(training.clip.state_dict()[name].clone())
        return honest(training, batch)

    monkeypatch.setattr(loop, "_step", noting)
    pretrain(small(line, tmp_path / "run", ema_decay=0.75, steps=2, checkpoint_every=1))
    fresh, first = seen
    last = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["model"][name]
    saved = load_file(tmp_path / "run" / "weights.safetensors")[name]
    torch.testing.assert_close(saved, 0.75 * (0.75 * fresh + 0.25 * first) + 0.25 * last)
    assert not torch.equal(saved, last)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_what_is_not_finite_names_step_samples_and_checkpoint(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The gradient may be infinite even if the loss is finite: step 4 must not be saved."""
    honest, steps = loop.backward, itertools.count(1)

    def diverging(fabric: Fabric, model: torch.nn.Module, *rest: Any) -> Losses:
        losses = honest(fabric, model, *rest)
        if next(steps) < 4:
            return losses
        if what == "loss":
            return losses._replace(total=losses.total * float("nan"))
        parameter = next(model.parameters())
        assert parameter.grad is not None
        parameter.grad.fill_(float("inf"))
        return losses

    monkeypatch.setattr(loop, "backward", diverging)
    found = {"loss": r"nan, gradient norm \d.*", "gradient": r"\d.*, gradient norm (nan|inf)"}[what]
    said = rf"found {found}, at step 4, samples 0000000\d\d, .*last good checkpoint is .*last"
    with pytest.raises(ValueError, match=said):
        pretrain(small(line, tmp_path / "run"))
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["step"] == 2


def test_another_number_of_workers_cannot_resume(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = loop.finish_run

    def lose_power(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "finish_run", lose_power)
    with pytest.raises(KeyboardInterrupt):
        pretrain(small(line, tmp_path / "run"))
    monkeypatch.setattr(loop, "finish_run", stopped)
    with pytest.raises(FileExistsError, match="num_workers: 0 -> 2"):
        pretrain(small(line, tmp_path / "run", num_workers=2))
    pretrain(small(line, tmp_path / "run"))  # only the end was missing
    assert (tmp_path / "run" / "run.json").exists()


def test_machines_that_do_not_share_the_run_folder_cannot_resume(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "gather_objects", lambda step: [500, step])
    with pytest.raises(ValueError, match="found at step 0 and 500 by different processes; --out has to be a folder"):
        pretrain(small(line, tmp_path / "run"))


def test_an_encoder_wants_multiples_of_its_stride_and_a_vit_none_of_it(line: Line, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--image-size-px: found 336, expected a multiple of 32, the stride of nano"):
        pretrain(small(line, tmp_path / "run", image_size_px=336))
    with pytest.raises(FileNotFoundError, match="no-such"):  # the next check
        pretrain(small(line, tmp_path / "run", model="ViT-L-14-336", image_size_px=336, data=("no-such",)))


def test_shards_without_a_word_about_their_teachers_want_the_flags(line: Line, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"reinforcement\.json: no such file.*--teacher-dims"):
        pretrain(distilling(line, tmp_path / "run", data=(str(line.scenes / "shards"),)))
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="--teacher-temperatures: found 0, expected one for each of 2"):
        pretrain(distilling(line, tmp_path / "run", teacher_dims=(100, 28)))


@pytest.mark.parametrize("teachers", [None, [], "clip", [{"dim": 24}], [{"dim": "wide", "temperature": 100}]])
def test_a_word_about_the_teachers_that_says_nothing_is_refused_by_file(
    line: Line, tmp_path: Path, teachers: object
) -> None:
    (tmp_path / "reinforcement.json").write_text(json.dumps({"teachers": teachers}))
    (tmp_path / "train").symlink_to(line.reinforced / "train")
    with pytest.raises(ValueError, match=r"reinforcement\.json: teachers: found .*expected a list of objects with dim"):
        pretrain(distilling(line, tmp_path / "run", data=(str(tmp_path),)))


def test_embeddings_of_another_width_than_the_flags_say_stop_the_run(line: Line, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"bad samples in .* reinforcement"):
        pretrain(distilling(line, tmp_path / "run", teacher_dims=(100,), teacher_temperatures=(10.0,)))
