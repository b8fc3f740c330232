"""Bars are for terminals: a log file gets plain lines of what reports figures, and nothing of the rest."""

import io
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from mobileclip_dense.pages.progress import TrackedProgress, progress_bar

REPOSITORY = Path(__file__).parent.parent.parent
HOME = "mobileclip_dense/pages/progress.py"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_file_holds_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress_bar(range(3), "scenes", unit="image")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


def test_a_terminal_shows_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    assert list(progress_bar(iter("ab"), "scenes", unit="image", total=2)) == ["a", "b"]
    assert "scenes: 100%" in terminal.getvalue()


def test_a_bar_that_is_not_shown_is_not_shown_on_a_terminal_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    assert list(progress_bar(range(2), unit="image", shown=False)) == [0, 1]
    assert terminal.getvalue() == ""


def train(num_steps: int, initial: int = 0, *, shown: bool = True) -> None:
    progress = TrackedProgress("pretrain", num_steps, initial=initial, shown=shown)
    for step in range(initial + 1, num_steps + 1):
        progress.advance()
        progress.report(f"step {step} of {num_steps}, loss {1 / step:.3f}")
    progress.close()


def test_a_log_file_gets_a_line_at_each_tenth_of_a_training(capsys: pytest.CaptureFixture[str]) -> None:
    train(300)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0] == "pretrain 10 %: step 30 of 300, loss 0.033"
    assert lines[-1] == "pretrain 100 %: step 300 of 300, loss 0.003"


def test_a_resumed_training_goes_on_with_the_next_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    train(300, initial=270)
    assert capsys.readouterr().err.splitlines() == ["pretrain 100 %: step 300 of 300, loss 0.003"]


def test_a_long_training_gets_a_line_every_ten_minutes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(0, 10**6, 100))
    monkeypatch.setattr("mobileclip_dense.pages.progress.time.monotonic", lambda: next(clock))
    progress = TrackedProgress("pretrain", 10**9)
    for step in range(12):
        progress.advance()
        progress.report(f"step {step}")
    assert capsys.readouterr().err.splitlines() == ["pretrain 0 %: step 5", "pretrain 0 %: step 11"]


def test_a_terminal_gets_a_bar_with_the_figures_and_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    train(300)
    shown = terminal.getvalue()
    assert "pretrain 100 %|" in shown and "step 300 of 300, loss 0.003" in shown
    assert "pretrain 10 %:" not in shown


def test_processes_but_the_first_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    train(300, shown=False)
    assert capsys.readouterr() == ("", "")


def test_bars_have_one_home() -> None:
    using = {
        path.relative_to(REPOSITORY).as_posix()
        for top in ("mobileclip_dense", "benchmarks", "apps", "export")
        for path in (REPOSITORY / top).rglob("*.py")
        if "import tqdm" in path.read_text()
    }
    assert using == {HOME}


def test_coremltools_is_imported_without_a_word_of_its_mac_libraries() -> None:
    code = "import mobileclip_dense.deploy.coreml.mil.program, coremltools.models.ml_program.experimental.perf_utils"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""


def test_errors_of_coremltools_are_still_shown(caplog: pytest.LogCaptureFixture) -> None:
    import mobileclip_dense.deploy.coreml  # noqa: F401

    logging.getLogger("coremltools.converters").warning("not for users")
    logging.getLogger("coremltools.converters").error("the weights are lost")
    assert caplog.messages == ["the weights are lost"]
