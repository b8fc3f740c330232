"""When a folder is a run to go on with, and when it is in the way; what of a damaged one is read."""

import dataclasses
import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch

from mobileclip_dense.config import Config, FinetuneConfig, PretrainConfig
from mobileclip_dense.run.checkpoints import checkpoint_file, load_checkpoint, save_checkpoint, settle_checkpoints
from mobileclip_dense.run.folder import finish_run, load_run, open_run
from mobileclip_dense.run.training_log import append_metrics, drop_metrics_after, read_metrics
from tests.conftest import dense_details

FIELDS = ("step", "model")


def begin(config: Config) -> None:
    with open_run(config, {}):
        pass


def test_other_settings_are_refused_once_there_is_a_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = FinetuneConfig(data=tmp_path, out=tmp_path / "run", seed=1)
    begin(config)
    other = dataclasses.replace(config, seed=2)
    begin(other)  # nothing was trained yet
    assert json.loads((config.out / "config.json").read_text())["seed"] == 2
    save_checkpoint(checkpoint_file(config.out), {"step": 1})
    assert "resuming" not in capsys.readouterr().out
    with pytest.raises(FileExistsError, match=r"begun with other settings \(seed: 2 -> 1\); use the same ones"):
        begin(config)
    begin(other)
    assert "resuming" in capsys.readouterr().out
    begin(dataclasses.replace(config, force=True))
    assert not checkpoint_file(config.out).exists()


@pytest.mark.parametrize("kind", [PretrainConfig, FinetuneConfig])
def test_what_may_change_in_a_resumed_run_are_settings(kind: type[PretrainConfig] | type[FinetuneConfig]) -> None:
    assert {field.name for field in dataclasses.fields(kind)} >= kind.MAY_CHANGE


def test_what_training_does_not_depend_on_may_change_in_a_resumed_run(tmp_path: Path) -> None:
    config = PretrainConfig(data=("shards",), out=tmp_path / "run", zeroshot_data=tmp_path / "images", num_workers=1)
    begin(config)
    save_checkpoint(checkpoint_file(config.out), {"step": 1})
    other = dataclasses.replace(
        config, zeroshot_data=None, val_data="pairs", class_names=tmp_path / "names", templates=tmp_path / "sentences",
        evaluate_every=7, checkpoint_every=3, max_bad_share=0.5,
    )  # fmt: skip
    begin(other)
    assert json.loads((config.out / "config.json").read_text())["zeroshot_data"] is None  # what is recorded is what ran
    for name, value in (("num_workers", 2), ("learning_rate", 0.5), ("image_size_px", 64)):  # they read other samples
        with pytest.raises(FileExistsError, match=rf"other settings \({name}: "):
            begin(dataclasses.replace(other, **{name: value}))


def test_a_folder_of_something_else_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(FileExistsError, match="found a folder that is not a run; choose another --out"):
        begin(FinetuneConfig(data=tmp_path, out=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def training_state(step: int) -> dict[str, object]:
    return {"step": step, "model": {"weight": torch.full((5000,), float(step))}}


@pytest.fixture
def interrupted(tmp_path: Path) -> FinetuneConfig:
    """A run with the checkpoints of steps 1, 2 and 3, as far as they are kept."""
    config = FinetuneConfig(data=tmp_path, out=tmp_path / "run")
    begin(config)
    for step in (1, 2, 3):
        save_checkpoint(checkpoint_file(config.out), training_state(step))
    return config


def zeros_inside(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(512) + data[middle + 512 :]


def rewritten(contents: object) -> Callable[[bytes], bytes]:
    def write(_: bytes) -> bytes:
        file = BytesIO()
        torch.save(contents, file)
        return file.getvalue()

    return write


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut short": lambda data: data[: len(data) // 2],
    "zeros": lambda data: bytes(len(data)),
    "zeros inside": zeros_inside,
    "one bit": lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :],
    "zeros at the end": lambda data: data[:9000] + bytes(len(data) - 9000),
    "text": lambda _: b"no checkpoint",
    "a list": rewritten([1, 2]),
    "weights alone": rewritten({"weight": torch.zeros(3)}),
}


def test_two_checkpoints_are_kept_and_leavings_of_a_killed_process_removed(interrupted: FinetuneConfig) -> None:
    folder = checkpoint_file(interrupted.out).parent
    (folder / ".last.partial-1234.pt").write_bytes(b"half")
    save_checkpoint(checkpoint_file(interrupted.out), training_state(4))
    assert {path.name: load_checkpoint(path)["step"] for path in folder.iterdir()} == {"last.pt": 4, "previous.pt": 3}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_replaced_by_the_one_before(
    interrupted: FinetuneConfig, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    last = checkpoint_file(interrupted.out)
    whole = last.read_bytes()
    settle_checkpoints(interrupted.out, FIELDS)
    assert capsys.readouterr() == ("", "")
    assert last.read_bytes() == whole
    last.write_bytes(DAMAGES[damage](whole))
    settle_checkpoints(interrupted.out, FIELDS)
    assert load_checkpoint(last)["step"] == 2
    said = capsys.readouterr().err
    assert said.startswith(f"warning: {last}: checkpoint: ")
    assert f"resuming from the checkpoint before it, {last.with_name('previous.pt')}" in said


@pytest.mark.parametrize("damage", DAMAGES)
def test_where_no_checkpoint_can_be_read_both_are_named_and_kept(interrupted: FinetuneConfig, damage: str) -> None:
    last = checkpoint_file(interrupted.out)
    previous = last.with_name("previous.pt")
    damaged = {path: DAMAGES[damage](path.read_bytes()) for path in (last, previous)}
    for path, contents in damaged.items():
        path.write_bytes(contents)
    said = r"last\.pt: checkpoint: .*previous\.pt: checkpoint: .*start over with --force"
    with pytest.raises(ValueError, match=said):
        settle_checkpoints(interrupted.out, FIELDS)
    assert {path: path.read_bytes() for path in damaged} == damaged
    previous.unlink()
    with pytest.raises(ValueError, match=r"last\.pt: checkpoint: .*previous\.pt: checkpoint: no such file; .*--force"):
        settle_checkpoints(interrupted.out, FIELDS)
    begin(dataclasses.replace(interrupted, force=True))
    assert not last.exists()


@pytest.mark.parametrize("rename", [1, 2])
def test_who_is_killed_at_a_rename_finds_a_checkpoint(
    interrupted: FinetuneConfig, monkeypatch: pytest.MonkeyPatch, rename: int
) -> None:
    replace, calls = Path.replace, list[Path]()

    def killed(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == rename:
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", killed)
        save_checkpoint(checkpoint_file(interrupted.out), training_state(4))
    settle_checkpoints(interrupted.out, FIELDS)
    assert load_checkpoint(checkpoint_file(interrupted.out))["step"] == 3


@pytest.mark.parametrize(
    "bad", [b'{"step": 2, "lo', b"\0\0\0\0", b"[1, 2]", b"{}", b'{"step": "2"}', b"\xff\xfe", b"[" * 9999]
)
def test_a_damaged_line_of_the_log_is_named_and_does_not_end_a_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], bad: bytes
) -> None:
    path = tmp_path / "metrics.jsonl"
    append_metrics(tmp_path, step=1, loss=3.0)
    path.write_bytes(path.read_bytes() + bad + b"\n")
    for step in (3, 4):
        append_metrics(tmp_path, step=step, loss=1.0)
    damaged = path.read_bytes()
    with pytest.raises(ValueError, match=r"metrics\.jsonl: line 2: found .*, expected a JSON object with a step; rem"):
        read_metrics(tmp_path)
    drop_metrics_after(tmp_path, 3)
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 3]
    assert "metrics.jsonl: line 2: found" in capsys.readouterr().err
    assert (tmp_path / "metrics.damaged.jsonl").read_bytes() == damaged


def finished_run(folder: Path) -> Path:
    config = FinetuneConfig(data=folder, out=folder / "run")
    with open_run(config, {}):
        finish_run(config, {"weight": torch.zeros(9)}, {"mIoU": 1.0}, started=0.0, device="cpu",
                   details=dense_details("a"), structure={"layer": {"channels": 3}})  # fmt: skip
    return config.out


@pytest.mark.parametrize("name", ["config.json", "run.json", "weights.safetensors", "structure.json"])
@pytest.mark.parametrize("contents", [b"", b"{", b"\0" * 200, b"[1]", b"{}", b'"run"', b"\xff\xfe{}"])
def test_a_damaged_file_of_a_run_is_named_with_a_remedy(tmp_path: Path, name: str, contents: bytes) -> None:
    run = finished_run(tmp_path)
    assert load_run(run).structure == {"layer": {"channels": 3}}
    (run / name).write_bytes(contents)
    with pytest.raises(ValueError, match=rf"{name}: .*; copy the run again, or train it again$"):
        load_run(run)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("config.json", "data", 5), ("config.json", "command", ["finetune"]), ("config.json", "batch_size", "many"),
        ("config.json", "crop_size_px", None), ("run.json", "weights_sha256", 5), ("run.json", "class_names", None),
        ("run.json", "metrics", []), ("run.json", "architecture", None), ("run.json", "structure_sha256", None),
    ],
)  # fmt: skip
def test_a_field_of_another_type_is_named(tmp_path: Path, name: str, field: str, value: object) -> None:
    run = finished_run(tmp_path)
    record = json.loads((run / name).read_text())
    (run / name).write_text(json.dumps(record | {field: value}))
    with pytest.raises(ValueError, match=rf"{name}: .*; copy the run again, or train it again$"):
        load_run(run)


@pytest.mark.parametrize(
    ("settings", "structure", "expected"),
    [
        ({"encoder": "mci2", "head": "fpn_lite"}, None, "mci2-fpn_lite"),
        ({"encoder": "mci2", "head": "fpn_lite"}, {"layer": {"channels": 3}}, "mci2-fpn_lite-pruned"),
        ({"task": "detect", "head": "mask_rcnn"}, None, "nano-mask_rcnn"),
    ],
)
def test_a_dense_run_records_encoder_head_and_pruning_as_its_architecture(
    tmp_path: Path, settings: dict[str, Any], structure: dict[str, dict[str, int]] | None, expected: str
) -> None:
    config = FinetuneConfig(data=tmp_path, out=tmp_path / "run", **settings)
    with open_run(config, {}):
        finish_run(config, {"weight": torch.zeros(9)}, {}, started=0.0, device="cpu", details=dense_details("a"),
                   structure=structure)  # fmt: skip
    assert load_run(config.out).architecture == expected


@pytest.mark.parametrize("model", ["nano", "ViT-B-16"])
def test_a_pretraining_run_records_its_model_as_its_architecture(tmp_path: Path, model: str) -> None:
    config = PretrainConfig(data=("shards",), out=tmp_path / "run", model=model)
    with open_run(config, {}):
        finish_run(config, {"weight": torch.zeros(9)}, {}, started=0.0, device="cpu", details={})
    assert load_run(config.out).architecture == model
