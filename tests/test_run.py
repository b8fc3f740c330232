"""When a folder is a run to go on with, and when it is in the way."""

import dataclasses
import json
from pathlib import Path

import pytest

from mobileclip_dense.config import Config, FinetuneConfig, PretrainConfig
from mobileclip_dense.run import checkpoint_file, open_run, save_checkpoint


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
    with pytest.raises(FileExistsError, match=r"begun with other settings \(seed: 2 -> 1\); repeat them, or pass --fo"):
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
    with pytest.raises(FileExistsError, match="exists and is no run; choose another --out"):
        begin(FinetuneConfig(data=tmp_path, out=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
