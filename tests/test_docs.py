"""README and docs: commands and code run at the smallest size, other commands are parsed, and the site builds."""

import re
import runpy
import shlex
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tyro
from PIL import Image

from mobileclip_dense import __main__, command
from mobileclip_dense.commands import command_groups
from tests.conftest import REPOSITORY, SMALL_FINETUNE, SMALL_PRETRAIN, run_module

DOCS = REPOSITORY / "docs"
GENERATED = ("RESULTS", "compare")
CHAPTERS = re.search(r"```\{toctree\}.*?\n\n(.*?)```", (DOCS / "index.md").read_text(), re.DOTALL)[1].split()  # type: ignore[index]
PAGES = [REPOSITORY / "README.md", *(DOCS / f"{name}.md" for name in CHAPTERS if name not in GENERATED)]
ALL_PAGES = [*PAGES, DOCS / "index.md", *(DOCS / f"{name}.md" for name in GENERATED), REPOSITORY / "CONTRIBUTING.md"]

SMALLER = {
    "mobileclip-dense scenes": ("--num-images", "128", "--size-px", "64"),  # two shards, for two processes
    "mobileclip-dense reinforce": ("--num-augmentations", "2"),
    "torchrun --nproc-per-node 2 -m mobileclip_dense pretrain": SMALL_PRETRAIN,
    "torchrun --nproc-per-node 2 -m mobileclip_dense finetune": SMALL_FINETUNE,
    "mobileclip-dense pretrain": SMALL_PRETRAIN,
    "mobileclip-dense finetune": SMALL_FINETUNE,
    "mobileclip-dense latency": ("--runs", "5"),
}
SIZES = {"shards-64x64": "shards-32x32", "96x96": "64x64", "--size-px 96": ""}
PROGRAMS = {"mobileclip-dense": ["mobileclip_dense"], "torchrun": ["torch.distributed.run"]}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def smaller(text: str) -> str:
    for written, smallest in SIZES.items():
        text = text.replace(written, smallest)
    return text


def run_commands(page: Path, folder: Path, done: set[str]) -> None:
    """Run the commands of a page that are not done yet, and add them."""
    for line in "".join(blocks(page, "bash")).replace("\\\n", "").splitlines():
        written = " ".join(line.split())
        if not written or written in done:
            continue
        flags = next((flags for prefix, flags in SMALLER.items() if written.startswith(prefix)), ())
        program, *arguments = shlex.split(smaller(written))
        result = run_module(*PROGRAMS[program], *arguments, *flags, check=False, cwd=folder)
        assert result.returncode == 0, f"{page.name}: {written}\n{result.stderr[-3000:]}"
        done.add(written)


def run_python(page: Path, folder: Path) -> None:
    """Run the Python of a page as one script."""
    if code := "\n".join(blocks(page, "python")):
        module = f"page_{page.stem.replace('-', '_').lower()}"
        (folder / f"{module}.py").write_text(smaller(code))
        result = run_module(module, check=False, cwd=folder)
        assert result.returncode == 0, f"{page.name}\n{result.stderr[-3000:]}"


def test_the_commands_and_the_code_of_the_docs_run_in_their_order(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg")
    done: set[str] = set()
    for page in PAGES:
        run_commands(page, tmp_path, done)
        if page.stem != "extending":  # tests/test_extending.py runs that page
            run_python(page, tmp_path)
    assert len(done) >= 30
    assert (tmp_path / "report.html").exists()
    assert len(list((tmp_path / "pictures").glob("*-segment.png"))) == 2  # of the sample scenes
    names = {path.name for folder in ("segmented", "measured", "labelled") for path in (tmp_path / folder).iterdir()}
    assert names >= {f"00000007-{end}" for end in ("segment.png", "classes.png", "depth.png", "depth-mm.png",
                                                   "depth.ply", "classify.png")}  # fmt: skip
    assert names >= {"segment-summary.json", "depth-summary.json", "classify-summary.json"}


def commands_for_elsewhere() -> Iterator[tuple[str, ...]]:
    """The commands of all `console` blocks, with their loops unrolled: bash runs functions that print their names."""
    names = ("mobileclip-dense", "torchrun", "python", "pip", "make", "source", "pytest")
    functions = "".join(f"function {name} {{ printf '%s\\n' {name} \"$@\" ''; }}\n" for name in names)
    for page in ALL_PAGES:
        for block in blocks(page, "console"):
            shell = subprocess.run(
                ["bash", "-euc", functions + block], capture_output=True, text=True, check=False, cwd="/"
            )
            assert shell.returncode == 0, f"{page.name}: {block}{shell.stderr}"
            yield from (tuple(lines.split("\n")) for lines in shell.stdout.rstrip("\n").split("\n\n") if lines)


def inline_commands() -> Iterator[tuple[str, ...]]:
    """Whole commands within a sentence or a table: those that name what they work on."""
    for page in ALL_PAGES:
        for code in re.findall(r"`((?:mobileclip-dense|python -m (?:benchmarks|export)\.)[^`]*)`", page.read_text()):
            words = tuple(word.removesuffix("...") for word in shlex.split(code))
            if len(words) > 3:
                yield words


def parse(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> object:
    """The settings of a command, built by its own parser; nothing runs."""
    if words[0] == "torchrun":
        words = ("mobileclip-dense", *words[words.index("mobileclip_dense") + 1 :])
    if words[0] == "mobileclip-dense":
        commands = {name: one for group in command_groups().values() for name, one in group.items()}
        name = next(name for name in commands if list(words[1 : 1 + len(name.split())]) == name.split())
        return __main__._parse(name, commands[name], words[1 + len(name.split()) :])
    found: list[object] = []
    with monkeypatch.context() as patch:
        patch.setattr(
            command, "run_with_settings",
            lambda settings, action, prog: found.append(tyro.cli(settings, args=words[3:])),
        )  # fmt: skip
        runpy.run_module(words[2], run_name="__main__")
    return found[0]


def test_every_other_command_is_parsed_by_its_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {*commands_for_elsewhere(), *inline_commands()}
    ours = [words for words in found if words[0] in ("mobileclip-dense", "torchrun") or words[:2] == ("python", "-m")]
    wrong = []
    for words in sorted(ours):
        try:
            assert parse(words, monkeypatch) is not None
        except (SystemExit, StopIteration, ValueError) as error:
            wrong.append(f"{' '.join(words)}: {error!r}")
    assert not wrong, "\n".join(wrong)
    assert len(ours) >= 50


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    for page in ALL_PAGES:
        for target in re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), re.MULTILINE):
            assert target in targets, f"{page.name}: make {target}"


def test_every_link_and_every_file_that_is_named_exists() -> None:
    for page in ALL_PAGES:
        text = page.read_text()
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
        for name in re.findall(r"`((?:docs|tests|apps|benchmarks/results)/[\w./-]+)`", text):
            assert (REPOSITORY / name).exists(), f"{page.name}: {name}"
        for module in re.findall(r"python -m ((?:apps|benchmarks|export)[\w.]*)", text):
            assert find_spec(module), f"{page.name}: {module}"


def test_the_readme_fits_in_180_lines() -> None:
    assert len(PAGES[0].read_text().splitlines()) <= 180


def test_every_page_is_in_the_contents() -> None:
    assert {path.stem for path in DOCS.glob("*.md")} == {"index", *CHAPTERS}


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    run_module("sphinx", "-W", "--keep-going", "-q", "-b", "html", DOCS, tmp_path / "site", NO_COLOR="1")
    for name in CHAPTERS:
        assert (tmp_path / "site" / f"{name}.html").exists()
    assert "mobileclip_dense.load" in (tmp_path / "site" / "python-api.html").read_text()
