"""The page's Python half: what it bundles, how it serves, and that its fixtures are what Python computes now.

The page itself is tested in a browser: `make test-web`.
"""

import base64
import copy
import io
import json
import os
import shutil
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import numpy as np
import pytest

from apps.web import build
from apps.web.__main__ import WebConfig, web
from apps.web.build import read_artifacts
from apps.web.server import open_server
from mobileclip_dense.artifact.result import check_result
from tests.apps.web_fixtures import as_text, fixtures
from tests.conftest import REPOSITORY, Line


def test_the_pages_tables_and_fixtures_are_what_python_computes_now() -> None:
    for file, value in fixtures().items():
        committed = json.loads(file.read_text(encoding="utf-8"))
        expected = json.loads(as_text(value))
        if file.name == "arrays.json":  # zip's bytes differ from one Python to the next, the arrays do not
            for kind in ("stored", "compressed"):
                packed = [one.pop(kind) for one in (committed, expected)]
                loaded = [np.load(io.BytesIO(base64.b64decode(text))) for text in packed]
                assert sorted(loaded[0]) == sorted(loaded[1])
                for name in loaded[0]:
                    np.testing.assert_array_equal(loaded[0][name], loaded[1][name])
        assert committed == expected, f"{file}: stale; run python -m tests.apps.web_fixtures"


def test_onnx_artifacts_are_bundled_fp32_first(line: Line) -> None:
    bundle = read_artifacts(line.root / "artifacts")
    found = [(artifact.task, artifact.precision) for _, artifact in bundle.artifacts]
    assert found == [("segment", "fp32"), ("segment", "int8"), ("depth", "fp32")]
    assert bundle.left_out == {}


def spoil(folder: Path, field: str, value: object) -> None:
    path = folder / "artifact.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))


def test_copied_and_damaged_artifacts_are_left_out_and_named(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = line.artifact("segment", "fp32.onnx")
    for name in (original.name, "a copy", "cut", "altered", "no-json.onnx", "task", "name", "type", ".hidden"):
        shutil.copytree(original, tmp_path / "artifacts" / name)
    (tmp_path / "artifacts" / "notes").mkdir()
    folder = tmp_path / "artifacts"
    (folder / "cut" / "artifact.json").write_text('{"name": ')
    (folder / "altered" / "model.onnx").write_bytes(b"other")
    (folder / "no-json.onnx" / "artifact.json").unlink()
    spoil(folder / "task", "task", "juggle")
    spoil(folder / "name", "name", "../../elsewhere")
    spoil(folder / "type", "files", None)
    monkeypatch.setattr(build, "_require_node", lambda: None)
    monkeypatch.setattr(build, "_install_packages", lambda: None)
    monkeypatch.setattr(build, "_run", lambda command: None)
    web(WebConfig(artifacts=folder, build_only=tmp_path / "site"))
    index = json.loads((tmp_path / "site" / "models" / "index.json").read_text())
    assert [entry["name"] for entry in index["artifacts"]] == [original.name]
    expected = {
        "a copy": f"artifact.json: name: found {original.name}, which is also the name in the folder {original.name}",
        "cut": "artifact.json: not valid JSON", "altered": "model.onnx: sha256: found",
        "no-json.onnx": "artifact.json: no such file", "task": "task: found 'juggle'",
        "name": "name: found '../../elsewhere'", "type": "artifact.json: files: found None",
    }  # fmt: skip
    assert index["left_out"].keys() == expected.keys()
    said = capsys.readouterr().err
    for name, words in expected.items():
        assert words in index["left_out"][name]
        assert str(tmp_path) not in index["left_out"][name]
        assert f"warning: {name}: left out: " in said
    shutil.rmtree(folder / original.name)
    assert [path.name for path, _ in read_artifacts(folder).artifacts] == ["a copy"]
    shutil.rmtree(folder / "a copy")
    with pytest.raises(FileNotFoundError, match=r"found no ONNX artifact; .*altered: model\.onnx: sha256"):
        read_artifacts(folder)


def test_what_is_bundled_is_newer_than_what_was_bundled_before(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server answers "not modified" to a browser that holds a newer file of the same name."""
    artifact = tmp_path / "artifacts" / "a.onnx"
    shutil.copytree(line.artifact("segment", "fp32.onnx"), artifact)
    os.utime(artifact / "model.onnx", (1e9, 1e9))
    monkeypatch.setattr(build, "_require_node", lambda: None)
    monkeypatch.setattr(build, "_install_packages", lambda: None)
    monkeypatch.setattr(build, "_run", lambda command: (tmp_path / "site").mkdir())
    began = time.time() - 2  # file systems round
    build.build_page(tmp_path / "site", read_artifacts(artifact.parent), build.HERE / "samples")
    (bundled,) = (tmp_path / "site" / "models").glob("*/model.onnx")
    assert bundled.stat().st_mtime >= began
    assert bundled.read_bytes() == (artifact / "model.onnx").read_bytes()


def test_without_artifacts_it_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="found no ONNX artifact; run `make demo` first"):
        web(WebConfig(artifacts=tmp_path / "nowhere"))


def test_without_node_it_says_what_to_install(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"node: not found, expected Node\.js"):
        web(WebConfig(artifacts=line.root / "artifacts", build_only=tmp_path / "site"))
    assert list(tmp_path.iterdir()) == []


def test_a_node_that_is_too_old_is_named(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.shutil, "which", lambda name: name)
    monkeypatch.setattr(
        build.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0, stdout="v18.20.4\n")
    )
    with pytest.raises(ValueError, match=r"node: found v18\.20\.4, expected Node\.js 20\.19 or newer"):
        web(WebConfig(artifacts=line.root / "artifacts", build_only=tmp_path / "site"))
    assert list(tmp_path.iterdir()) == []


def test_a_taken_port_is_named_before_anything_is_built(line: Line, tmp_path: Path) -> None:
    with (
        open_server(tmp_path, "127.0.0.1", 0) as server,
        pytest.raises(OSError, match=f"{server.server_port} is in use"),
    ):
        web(WebConfig(artifacts=line.root / "artifacts", port=server.server_port))


def test_ports_and_hosts_that_do_not_exist_are_refused_by_flag(tmp_path: Path) -> None:
    for port in (-1, 65_536, 99_999, 10**30):
        with pytest.raises(ValueError, match=f"--port: found {port}, expected at (least 0|most 65535)"):
            WebConfig(port=port)
    for host in ("no.such.host.invalid", "a" * 300, "256.1.1.1", "a..b"):
        with pytest.raises(OSError, match="--host"):
            open_server(tmp_path, host, 0)


def test_the_server_isolates_the_page_and_lists_no_folder(tmp_path: Path) -> None:
    (tmp_path / "runtime.mjs").write_text("export {}")
    (tmp_path / "models").mkdir()
    with open_server(tmp_path, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        with urllib.request.urlopen(f"{address}/runtime.mjs") as answer:
            headers = answer.headers
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert headers["Content-Type"] == "text/javascript"
        for path in ("/models/", "/../../etc/hostname"):
            with pytest.raises(HTTPError, match="404"):
                urllib.request.urlopen(f"{address}{path}")
        server.shutdown()


def committed_results() -> list[dict[str, Any]]:
    return json.loads((REPOSITORY / "benchmarks" / "results" / "demo.json").read_text())["latencies"]


def test_the_committed_results_fit_the_schema() -> None:
    for result in committed_results():
        check_result(result, Path("demo.json"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: r.pop("system"), "fields: found .no system., expected all of the schema"),
        (lambda r: r.update(extra=1), "fields: found 'extra'"),
        (lambda r: r.update(schema_version=2), "schema_version: found 2, expected 1"),
        (lambda r: r.update(schema_version=True), "schema_version: found True"),
        (lambda r: r.update(artifact_sha256="abc"), "artifact_sha256: found 'abc'"),
        (lambda r: r.update(device="My PC"), "device: found 'My PC'"),
        (lambda r: r.update(versions={"numpy": 2}), "versions.numpy: found 2"),
        (lambda r: r.update(latency_ms_by_threads={}), "at least one number of threads"),
        (lambda r: r["latency_ms_by_threads"].update(two=r["latency_ms_by_threads"]["2"]), "found 'two'"),
        (lambda r: r["latency_ms_by_threads"]["2"].pop("mean"), "the fields p50, p90, p99, mean, num_runs"),
        (lambda r: r["latency_ms_by_threads"]["2"].update(p50=float("nan")), "positive numbers"),
        (lambda r: r["latency_ms_by_threads"]["2"].update(p50=1e9), "p50 <= p90 <= p99"),
    ],
)
def test_what_is_no_result_is_refused_by_field(spoil: Callable[[dict[str, Any]], object], message: str) -> None:
    result = copy.deepcopy(committed_results()[0])
    spoil(result)
    with pytest.raises(ValueError, match=rf"x\.json: .*{message}"):
        check_result(result, Path("x.json"))
