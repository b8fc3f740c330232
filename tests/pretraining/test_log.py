from pathlib import Path
from types import SimpleNamespace

import pytest

from mobileclip_dense.config import PretrainConfig
from mobileclip_dense.pretraining import log
from mobileclip_dense.run.training_log import append_metrics, read_metrics


def test_the_pace_counts_the_steps_since_it_was_last_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that resumes at step 17 writes the first line after three steps."""
    seconds = iter([100.0, 106.0, 126.0])
    monkeypatch.setattr(log, "time", SimpleNamespace(perf_counter=lambda: next(seconds)))
    config = PretrainConfig(data=("x",), out=tmp_path, batch_size=4)
    written = log.Log(config, SimpleNamespace(is_global_zero=True, world_size=2), 17)  # type: ignore[arg-type]
    for step in range(18, 31):
        written.step(step, loss=1.0)
    written.close()
    paces = [(line["step"], line["pairs_per_s"]) for line in read_metrics(tmp_path)]
    assert paces == [(20, 3 * 8 / 6), (30, 10 * 8 / 20)]


def test_a_line_that_was_cut_short_does_not_stop_a_run_from_resuming(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        append_metrics(tmp_path, step=step, loss=1.0)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text()[:-5])
    log.drop_metrics_after(tmp_path, 20)
    append_metrics(tmp_path, step=25, loss=1.0)
    assert [line["step"] for line in read_metrics(tmp_path)] == [10, 20, 25]
