from pathlib import Path

import pytest

from benchmarks import startup
from benchmarks.startup import StartupConfig, measure_startup
from mobileclip_dense.artifact.files import read_json


def test_starts_are_timed_beside_an_empty_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for heavy in ("import timm", "mobileclip-dense segment --help"):
        monkeypatch.delitem(startup.PROGRAMS, heavy)
    out = tmp_path / "startup.json"
    result = measure_startup(StartupConfig(out=out, runs=2))
    assert read_json(out) == result
    wall_ms = result["wall_ms"]
    assert list(wall_ms) == ["python -c pass", "import mobileclip_dense", "mobileclip-dense --help"]
    assert all(0 < wall["p50"] <= wall["p90"] for wall in wall_ms.values())
    assert result["import_ms"] == wall_ms["import mobileclip_dense"]["p50"] - wall_ms["python -c pass"]["p50"]
    with pytest.raises(FileExistsError):
        measure_startup(StartupConfig(out=out))
