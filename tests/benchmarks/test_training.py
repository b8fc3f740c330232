import json
from pathlib import Path

import pytest

from benchmarks import training_rival
from benchmarks.dense_training import DenseTrainingConfig, measure_dense_training
from benchmarks.training_memory import TrainingMemoryConfig, measure_table
from benchmarks.training_rival import TrainingRivalConfig, measure_training


def test_the_memory_table_measures_a_step_in_a_process_of_its_own(tmp_path: Path) -> None:
    measure_table(TrainingMemoryConfig(model="nano", image_size_px=64, batch_sizes=(8,), ways=("two passes",), steps=1,
                                       out=tmp_path / "memory.json"))  # fmt: skip
    (row,) = json.loads((tmp_path / "memory.json").read_text())["rows"]
    assert (row["way"], row["batch_size"]) == ("two passes", 8)
    assert row["pairs_per_s"] > 0
    assert 200 < row["peak_memory_mb"] < 5000


def test_a_step_that_fails_for_another_reason_is_not_taken_for_lack_of_memory(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nanno"):
        measure_table(TrainingMemoryConfig(model="nanno", batch_sizes=(8,), ways=("plain",), out=tmp_path / "x.json"))
    assert not (tmp_path / "x.json").exists()


@pytest.fixture
def rival(tmp_path: Path) -> TrainingRivalConfig:
    (tmp_path / "webdataset").mkdir()
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "0.tar").touch()
    return TrainingRivalConfig(
        data=tmp_path, open_clip_path=tmp_path, windows=1, rounds=1, out=tmp_path / "rival.json", batch_size=4
    )


def test_the_first_ten_steps_of_open_clip_are_left_out(
    rival: TrainingRivalConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = "".join(f"Train Epoch: 0 Data (t): 0.100 Batch (t): {9 if step < 10 else 2}.500, 3/s\n" for step in range(20))
    monkeypatch.setattr(training_rival, "_run", lambda command, **_: log)
    monkeypatch.setattr(training_rival, "_time_ours", lambda *_: [1.25])
    result = measure_training(rival)
    assert result["s_per_step_median"] == {"open_clip": 2.5, "ours": 1.25}
    assert result["ours_against_open_clip"] == 2.0
    assert result["pairs_per_s"]["ours"] == pytest.approx(3.2)


def test_a_log_that_stops_early_is_an_error(rival: TrainingRivalConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_rival, "_run", lambda command, **_: "Batch (t): 1.0\nkilled")
    with pytest.raises(ValueError, match="found the times of 1 steps, expected 20"):
        measure_training(rival)


def test_open_clips_own_folder_is_asked_for(rival: TrainingRivalConfig, tmp_path: Path) -> None:
    (tmp_path / "webdataset").rmdir()
    with pytest.raises(FileNotFoundError, match=r"pydoc benchmarks\.training_rival"):
        measure_training(rival)


def test_both_arms_of_dense_training_are_measured(tmp_path: Path) -> None:
    result = measure_dense_training(DenseTrainingConfig(encoder="nano", size_px=64, batch_size=2, steps=1, rounds=2,
                                                        out=tmp_path / "dense.json"))  # fmt: skip
    assert json.loads((tmp_path / "dense.json").read_text()) == result
    assert result["images_per_s"].keys() == {"stock", "ours"}
    assert result["ours_against_stock"] == pytest.approx(
        result["images_per_s"]["ours"] / result["images_per_s"]["stock"]
    )
