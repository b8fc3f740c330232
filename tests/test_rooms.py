"""Who may import whom: always downwards, and never in a circle."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
LIBRARY = "mobileclip_dense"

ALLOWED: dict[str, set[str]] = {"artifact": set(), "command": {"extras"}, "extras": set(), "processes": set()}
"""Room of the library -> rooms that its files may import. A room may be a single file."""
ALLOWED |= {
    "config": {"artifact"},
    "runtime": {"artifact"},
    "run": {"artifact", "config"},
    "recipes": {"config"},
}
ALLOWED["data"] = {"artifact", "config"}
ALLOWED["models"] = {"artifact", "config", "run"}
ALLOWED["pretraining"] = ALLOWED["dense"] = {"artifact", "config", "run", "models", "data"}
ALLOWED["deploy"] = ALLOWED["pretraining"] | {"pretraining", "dense", "runtime"}
ALLOWED["apps"] = {"artifact", "config", "runtime"}  # of config, the checks of settings
ALLOWED["analysis"] = ALLOWED["report"] = ALLOWED["deploy"] | {"deploy"}
for rooms in ALLOWED.values():
    rooms |= {"pages", "extras"}
ALLOWED["pages"] = set()
ALLOWED["commands"] = {"artifact"}
ALLOWED["__main__"] = ALLOWED["api"] = set(ALLOWED)

NO_TORCH = (
    "apps.demo",
    "apps.web.__main__",
    "mobileclip_dense.api",
    "mobileclip_dense.apps.classify",
    "mobileclip_dense.apps.depth",
    "mobileclip_dense.apps.latency",
    "mobileclip_dense.apps.segment",
    "mobileclip_dense.deploy.verify",
    "mobileclip_dense.report.report",
    "benchmarks.demo_throughput",
    "benchmarks.results_page.__main__",
    "benchmarks.compare.__main__",
    "benchmarks.coreml_device.__main__",
    "benchmarks.xcode_report",
    "mobileclip_dense.runtime.accuracy",
    "mobileclip_dense.artifact.artifact",
    "mobileclip_dense.config.encoders",
    "mobileclip_dense.config.heads",
    "mobileclip_dense.data.scenes.writer",
    "mobileclip_dense.__main__",
)


def name_of(file: Path) -> str:
    parts = file.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {
    name_of(file): file
    for top in (LIBRARY, "export", "apps", "benchmarks")
    for file in sorted((REPOSITORY / top).rglob("*.py"))
    if "node_modules" not in file.parts
}


@cache
def imported_by(name: str) -> frozenset[str]:
    """What a file imports, wherever in it; `from package import module` is the module."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"{name}: a relative import"
            inside = {f"{node.module}.{alias.name}" for alias in node.names} & set(FILES)
            names |= inside or {node.module}
    return frozenset(names)


def room_of(name: str) -> str:
    return name.split(".")[1] if "." in name else "__init__"


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith(f"{LIBRARY}.")])
def test_imports_go_downwards(name: str) -> None:
    tops = {imported.split(".")[0] for imported in imported_by(name)}
    assert not tops & {"export", "benchmarks", "apps", "tests"}, "the library imports what stands on it"
    rooms = {room_of(imported) for imported in imported_by(name) if imported.startswith(f"{LIBRARY}.")}
    assert rooms <= ALLOWED[room_of(name)] | {room_of(name)}


def test_nothing_imports_benchmarks() -> None:
    for name in FILES:
        if not name.startswith("benchmarks"):
            assert not any(imported.split(".")[0] == "benchmarks" for imported in imported_by(name)), name


def test_no_circle_between_files() -> None:
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name in done:
            return
        for imported in sorted(imported_by(name) & set(FILES)):
            # A package's own __init__ may gather the files of the package.
            if not name.startswith(f"{imported}."):
                visit(imported, (*path, name))
        done.add(name)

    for name in FILES:
        visit(name, ())


def test_no_circle_between_the_rooms_of_a_room() -> None:
    """Such as dense.heads and dense.training; files beside such rooms count as rooms of their own."""
    arrows: dict[str, set[str]] = {}
    for name in FILES:
        for imported in imported_by(name) & set(FILES):
            here, there = (".".join(each.split(".")[:3]) for each in (name, imported))
            if here != there and here.startswith(LIBRARY) and FILES[name].name != "__init__.py":
                arrows.setdefault(here, set()).add(there)
    for start in arrows:
        reached, todo = set(), [*arrows[start]]
        while todo:
            room = todo.pop()
            if room not in reached:
                reached.add(room)
                todo += arrows.get(room, ())
        assert start not in reached


def test_artifacts_need_numpy_and_readers_of_images_alone() -> None:
    allowed = set(sys.stdlib_module_names) | {"numpy", "PIL", "simplejpeg", LIBRARY}
    for name in FILES:
        if name.startswith(f"{LIBRARY}.artifact"):
            assert {imported.split(".")[0] for imported in imported_by(name)} <= allowed, name


@pytest.mark.parametrize(
    "room", ["artifact", "config", "runtime", "run", "models", "data", "pretraining", "dense", "apps"]
)
def test_only_deploy_knows_the_exporters(room: str) -> None:
    forbidden = {"coremltools", "onnx"} | ({"onnxruntime"} if room != "runtime" else set())
    for name in FILES:
        if room_of(name) == room and name.startswith(LIBRARY):
            assert not {imported.split(".")[0] for imported in imported_by(name)} & forbidden, name


@pytest.mark.parametrize("module", NO_TORCH)
def test_it_runs_without_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0
