"""A folder is replaced only if it is the same kind of output and is not an input."""

import multiprocessing
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mobileclip_dense.artifact.files import refuse_existing
from mobileclip_dense.artifact.lock import LOCK_NAME, locked_folder
from mobileclip_dense.artifact.outputs import EVALUATION, RUN, claim_folder, staged_folder
from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.run.checkpoints import checkpoint_file
from mobileclip_dense.run.folder import open_run


def make_run(folder: Path) -> Path:
    for name in ("config.json", "run.json", "metrics.jsonl", "weights.safetensors", "checkpoints/last.pt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("old")
    return folder


def everything(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_nothing_is_claimed_where_nothing_is_and_force_replaces_a_run(tmp_path: Path) -> None:
    assert not claim_folder(tmp_path / "none", RUN, force=False, inputs={})
    run = make_run(tmp_path / "run")
    with pytest.raises(FileExistsError, match="already exists; choose another name, or pass --force"):
        claim_folder(run, RUN, force=False, inputs={})
    assert claim_folder(run, RUN, force=True, inputs={"--data": tmp_path / "data", "--init": None})


def foreign_folders(root: Path) -> Iterator[tuple[Path, str]]:
    data = root / "data"
    (data / "images").mkdir(parents=True)
    (data / "images" / "1.jpg").write_text("a photograph")
    yield data, "found images/1.jpg, expected only a run"
    runs = root / "runs"
    make_run(runs / "a")
    yield runs, "found a/"
    annotated = make_run(root / "annotated")
    (annotated / "notes.txt").write_text("mine")
    yield annotated, "found notes.txt, expected only a run; move it away"
    deep = make_run(root / "deep")
    (deep / "plots" / "nested").mkdir(parents=True)
    (deep / "plots" / "nested" / "x.png").write_text("mine")
    yield deep, "found plots/nested/x.png"
    published = root / "a model of a hub"
    published.mkdir()
    (published / "config.json").write_text("{}")
    (published / "pytorch_model.bin").write_text("weights")
    yield published, "found pytorch_model.bin"
    unmarked = root / "unmarked"
    unmarked.mkdir()
    (unmarked / "weights.safetensors").write_text("of something else")
    yield unmarked, "found no config.json"
    linked = make_run(root / "with a link")
    (linked / "data").symlink_to(data)
    yield linked, "found data,"
    link = root / "link"
    link.symlink_to(make_run(root / "target"))
    yield link, "found a link, expected a run"
    file = root / "file"
    file.write_text("precious")
    yield file, "found a file, expected a run"


def test_force_leaves_alone_what_is_not_the_same_kind_of_output(tmp_path: Path) -> None:
    for folder, reason in list(foreign_folders(tmp_path)):
        before = everything(tmp_path)
        with pytest.raises(FileExistsError, match=f"is not replaced: {re.escape(reason)}"):
            claim_folder(folder, RUN, force=True, inputs={})
        config = FinetuneConfig(data=tmp_path, out=folder, force=True)
        with pytest.raises(FileExistsError), open_run(config, {}):
            pass
        assert everything(tmp_path) == before


@pytest.mark.parametrize(
    ("source", "reason"),
    [(".", "it is --init itself"), ("weights.safetensors", "it contains --init"), ("..", "it is inside --init")],
)
def test_force_leaves_alone_what_the_command_reads(tmp_path: Path, source: str, reason: str) -> None:
    run = make_run(tmp_path / "runs" / "a")
    with pytest.raises(FileExistsError, match=reason):
        claim_folder(run, RUN, force=True, inputs={"--init": run / source})
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    with pytest.raises(FileExistsError, match=reason):
        claim_folder(tmp_path / "link" / "a", RUN, force=True, inputs={"--init": run / source})


def test_a_commands_own_place_inside_an_input_is_replaced(tmp_path: Path) -> None:
    own = make_run(tmp_path / "run") / "evaluation"
    own.mkdir()
    (own / "evaluation.json").write_text("{}")
    inputs = {"the run": tmp_path / "run"}
    assert claim_folder(own, EVALUATION, force=True, inputs=inputs, own=own)
    with pytest.raises(FileExistsError, match="it is inside the run"):
        claim_folder(own, EVALUATION, force=True, inputs=inputs)


def test_what_appears_while_a_folder_is_written_is_kept(tmp_path: Path) -> None:
    for appears in (make_run, Path.mkdir, Path.touch):
        out = tmp_path / appears.__name__
        with (
            pytest.raises(FileExistsError, match="was created by another process in the meantime"),
            staged_folder(out, RUN, force=True, inputs={}) as staging,
        ):
            (staging / "config.json").write_text("new")
            appears(out)
            there = everything(tmp_path)
        assert everything(tmp_path) == {name for name in there if "partial" not in name}
        assert out.exists()
        assert list(tmp_path.glob(".*")) == []


def test_what_was_put_into_a_folder_while_it_is_replaced_is_kept(tmp_path: Path) -> None:
    out = make_run(tmp_path / "run")
    with (
        pytest.raises(FileExistsError, match=r"found notes\.txt"),
        staged_folder(out, RUN, force=True, inputs={}) as staging,
    ):
        (staging / "config.json").write_text("new")
        (out / "notes.txt").write_text("mine")
    assert (out / "config.json").read_text() == "old"
    with staged_folder(make_run(tmp_path / "other"), RUN, force=True, inputs={}) as staging:
        (staging / "config.json").write_text("new")
    assert everything(tmp_path / "other") == {"config.json"}
    assert list(tmp_path.glob(".*")) == []


def test_a_run_that_fails_before_it_has_saved_anything_gives_the_replaced_one_back(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    before = everything(run)
    config = FinetuneConfig(data=tmp_path, out=run, force=True)
    with pytest.raises(OSError, match="an input"), open_run(config, {}):
        assert not checkpoint_file(run).exists()
        raise OSError("an input cannot be opened")
    assert everything(run) - {LOCK_NAME} == before
    assert (run / "config.json").read_text() == "old"
    with pytest.raises(KeyboardInterrupt), open_run(config, {}):
        checkpoint_file(run).parent.mkdir()
        checkpoint_file(run).write_text("new")
        raise KeyboardInterrupt
    assert checkpoint_file(run).read_text() == "new"
    (kept,) = tmp_path.glob(".run.replaced-*")
    assert everything(kept) - {LOCK_NAME} == before


def _hold(folder: Path, held: Any, release: Any) -> None:
    with locked_folder(folder):
        held.set()
        release.wait(60)


@pytest.mark.parametrize("force", [False, True])
def test_a_run_that_another_process_writes_is_refused(tmp_path: Path, force: bool) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text("{}")
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    writer = context.Process(target=_hold, args=(run, held, release))
    writer.start()
    try:
        assert held.wait(60)
        config = FinetuneConfig(data=tmp_path, out=run, force=force)
        with (
            pytest.raises(FileExistsError, match=f"is being written by process {writer.pid}"),
            open_run(config, {}),
        ):
            pass
        assert (run / "config.json").read_text() == "{}"
        os.kill(writer.pid or 0, 9)  # a lock goes with its process
        writer.join()
        with open_run(config, {}):
            pass
    finally:
        writer.kill()
        writer.join()
    assert not (run / LOCK_NAME).exists()


def test_a_file_is_not_written_over_an_input_or_a_folder(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_text("a photograph")
    (tmp_path / "link.png").symlink_to(photo)
    for out in (photo, tmp_path / "link.png"):
        with pytest.raises(FileExistsError, match="is an input of the command and is not replaced"):
            refuse_existing(out, True, photo)
    with pytest.raises(FileExistsError, match="found a folder, expected a file name"):
        refuse_existing(tmp_path, True)
    refuse_existing(photo, True, tmp_path / "another.png")
