import dataclasses
import resource
import runpy
import subprocess
import sys
from pathlib import Path
from pkgutil import resolve_name

import pytest

from mobileclip_dense.commands import command_groups
from mobileclip_dense.recipes import finetuning, pretraining
from tests.conftest import REPOSITORY, Line, run_module

COMMANDS = {
    "mobileclip_dense scenes": ["--caption-quality", "pixels"],
    "mobileclip_dense join": ["--reinforcements", "uid"],
    "mobileclip_dense pretrain nano-scenes": ["--learning-rate", "pixels"],
    "mobileclip_dense finetune nano-segment": ["--init", "--crop-size-px", "metres"],
    "mobileclip_dense reinforce": ["--teachers", "MODEL:TAG", "torchrun", "KEY.pth.gz"],
    "mobileclip_dense evaluate": ["RUN", "--scales", "--eigen-crop", "averaged"],
    "mobileclip_dense prune": ["--target-params", "multiply-accumulates"],
    "mobileclip_dense analyze captions": ["SHARDS", "--clip", "MODEL:TAG"],
    "mobileclip_dense analyze attention-distance": ["--images", "receptive field"],
    "mobileclip_dense analyze features": ["IMAGE", "principal components"],
    "mobileclip_dense convert-weights": ["SOURCE", "MobileCLIP-S2", "downloaded from the hub"],
    "mobileclip_dense export onnx": ["--precision", "multiples of 32", "web", "cpu-int8"],
    "mobileclip_dense export coreml": ["--size-px", "iphone", "ios18", "w8a8"],
    "mobileclip_dense verify": ["ARTIFACT", "--bisect"],
    "benchmarks.onnx_rivals": ["--threads"],
    "benchmarks.data_path": ["--batch-size"],
    "benchmarks.mil_executor": ["--out"],
    "benchmarks.reinforce": ["--batch-size"],
    "mobileclip_dense latency": ["--threads"],
    "mobileclip_dense report": ["--runs"],
    "mobileclip_dense segment": ["--out"],
    "mobileclip_dense depth": ["--out"],
    "mobileclip_dense classify": ["--prompts", "zero-shot"],
    "apps.demo": ["--out"],
    "apps.segment": ["--sample"],
    "export.to_onnx": ["--precision"],
}


def test_help_lists_every_command_within_80_columns() -> None:
    text = run_module("mobileclip_dense", "--help").stdout
    assert max(map(len, text.splitlines())) <= 80
    names = [name for group in command_groups().values() for name in group]
    assert len(names) >= 20
    for name in names:
        assert f"\n  {name}" in text
    assert "python -m" not in text
    assert "checkout" not in text


def test_a_command_with_parts_lists_them() -> None:
    done = run_module("mobileclip_dense", "export", check=False)
    assert done.returncode == 2
    assert "export onnx" in done.stdout
    assert "export coreml" in done.stdout
    assert "finetune" not in done.stdout
    assert run_module("mobileclip_dense", "export", "--help").stdout == done.stdout
    wrong = run_module("mobileclip_dense", "export", "tflite", check=False)
    assert wrong.returncode == 2
    assert "mobileclip-dense export: found 'tflite', expected one of onnx, coreml" in wrong.stderr


def test_every_command_names_a_class_and_a_function_that_exist() -> None:
    for group in command_groups().values():
        for name, command in group.items():
            assert dataclasses.is_dataclass(resolve_name(command.settings)), name
            assert callable(resolve_name(command.action)), name


def test_the_lines_of_a_help_text_are_joined() -> None:
    text = run_module("mobileclip_dense", "segment", "--help").stdout
    assert "camera:0 (press q or ctrl-C to stop)" in " ".join(text.replace("│", " ").split())
    assert "press q or ctrl-C" in text, "a line break of the source is left in the middle of a sentence"


HIDE = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {hidden}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
"""


@pytest.mark.parametrize(
    ("hidden", "arguments", "message"),
    [
        ("torch", "finetune nano-segment --data x --out y", "mobileclip-dense finetune: needs the package torch"),
        ("torch", "export onnx x", "pip install 'mobileclip-dense[export]'"),
        ("coremltools", "export coreml x", "mobileclip-dense export coreml: needs the package coremltools"),
        ("matplotlib", "report", "pip install 'mobileclip-dense[report]'"),
        ("pycocotools", "scenes --out x", "pip install 'mobileclip-dense[train]'"),
    ],
)
def test_a_missing_extra_is_said_in_words(hidden: str, arguments: str, message: str, tmp_path: Path) -> None:
    program = f"{HIDE.format(hidden=(hidden,))}\nsys.argv = ['mobileclip-dense', *{arguments.split()!r}]\n"
    program += "from mobileclip_dense.__main__ import main\nmain()"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def run_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[object, str, str]:
    """`python -m ARGUMENTS` in this process, which has imported torch already: exit status, stdout and stderr."""
    monkeypatch.setattr(sys, "argv", list(arguments))
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(SystemExit) as stop:
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    return stop.value.code, *capsys.readouterr()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_its_flags(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, text, _ = run_here(monkeypatch, capsys, *command.split(), "--help")
    assert status == 0
    for word in COMMANDS[command]:
        assert word.lower() in " ".join(text.split()).lower()
    assert "default" in text or "required" in text.lower() or "ARTIFACT" in text


def test_the_lists_of_recipes_are_complete() -> None:
    for name, recipes in (("pretrain", pretraining.RECIPES), ("finetune", finetuning.RECIPES)):
        text = run_module("mobileclip_dense", name, "--help").stdout
        assert all(recipe in text for recipe in recipes if not recipe.endswith("-debug"))
        assert "NAME-debug" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "command: found 'nonsense', expected one of segment, depth, classify, export, verify"),
        (["finetune", "mci9-segment"], "mci2-fpn-ade20k"),
        (["finetune", "nano-segment", "--data", "x", "--out", "y", "--learning-rat", "1"], "--learning-rat"),
        (["pretrain", "nano-scenes", "--data", "x"], "--out"),
        (["scenes", "--out", "x", "--num-images", "some"], "some"),
        (["pretrain", "nano-scenes", "--data", "nowhere", "--out", "y"], "nowhere/train: shards: no such folder"),
        (["finetune", "nano-depth", "--data", "nowhere", "--out", "y"], "nowhere: --data: no such file or folder"),
        (["finetune", "nano-depth", "--data", "x", "--out", "y", "--init", "nowhere"], "nowhere: weights: no such"),
        (["finetune", "nano-depth", "--data", "x", "--out", "y", "--crop-size-px", "60", "64"], "multiples of 32"),
        (
            ["convert-weights", "nowhere.pt", "--model", "mci0", "--out", "y"],
            "nowhere.pt: weights: no such file or run",
        ),
        (["convert-weights", "x.pt", "--model", "mobileclip-s2", "--out", "y"], "did you mean MobileCLIP-S2"),
    ],
)
def test_a_mistake_is_answered_in_words(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, errors = run_here(monkeypatch, capsys, "mobileclip_dense", *arguments)
    assert status in (1, 2)
    assert "Traceback" not in errors
    assert message in " ".join(errors.replace("│", " ").split())
    assert not (REPOSITORY / "y").exists()


def with_full_disk(limit_bytes: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command whose files cannot grow beyond a limit: the write fails as on a full disk."""
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)], cwd=REPOSITORY, capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes)),
    )  # fmt: skip


def test_a_full_disk_leaves_no_half_written_scenes(tmp_path: Path) -> None:
    done = with_full_disk(50_000, "mobileclip_dense", "scenes", "--out", tmp_path / "scenes", "--num-images", "32")
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_half_written_artifact_or_checkpoint(line: Line, tmp_path: Path) -> None:
    done = with_full_disk(
        200_000, "mobileclip_dense", "export", "onnx", line.run("depth"), "--out", tmp_path / "artifacts"
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "artifacts").iterdir()) == []
    done = with_full_disk(200_000, "mobileclip_dense", "pretrain", "nano-scenes", "--data", line.scenes / "shards",
                          "--out", tmp_path / "run", "--steps", "1", "--warmup-steps", "1", "--batch-size", "4",
                          "--image-size-px", "32", "--num-workers", "0")  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == []
