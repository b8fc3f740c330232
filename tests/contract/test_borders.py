"""Who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent.parent
NO_TORCH = (
    "apps.segment",
    "apps.depth",
    "apps.classify",
    "apps.demo",
    "apps.web.__main__",
    "benchmarks.latency",
    "benchmarks.accuracy",
    "benchmarks.demo_throughput",
    "benchmarks.report",
    "benchmarks.compare",
    "benchmarks.coreml_device",
    "mobileclip_dense.contract.artifact",
    "mobileclip_dense.data.layouts",
    "mobileclip_dense.__main__",
)


def imported_by(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def test_the_library_imports_nothing_that_stands_on_it() -> None:
    forbidden = {"export", "benchmarks", "apps", "tests", "coremltools", "onnx", "onnxruntime"}
    for file in (REPOSITORY / "mobileclip_dense").rglob("*.py"):
        assert not {name.split(".")[0] for name in imported_by(file)} & forbidden, file


def test_the_contract_needs_numpy_and_readers_of_images_alone() -> None:
    allowed = set(sys.stdlib_module_names) | {"numpy", "PIL", "simplejpeg", "mobileclip_dense"}
    for file in (REPOSITORY / "mobileclip_dense" / "contract").rglob("*.py"):
        names = imported_by(file)
        assert {name.split(".")[0] for name in names} <= allowed, file
        assert all(name.startswith("mobileclip_dense.contract") for name in names if "mobileclip" in name), file


@pytest.mark.parametrize("module", NO_TORCH)
def test_it_runs_without_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0
