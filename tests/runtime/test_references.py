"""Artifacts by folder, `sample:NAME` and `hf-hub:ORG/NAME`; the hub's cache is made by the tests."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

import mobileclip_dense as mcd
from mobileclip_dense.artifact.artifact import load_artifact
from mobileclip_dense.runtime import references
from mobileclip_dense.runtime.references import find_artifact, sample_scenes
from tests.conftest import Line, run_module

COMMIT = "0" * 39 + "1"


def put_into_cache(artifact: Path, cache: Path, name: str) -> Path:
    """Write a repository into a cache of the hub, in its layout: blobs, links to them, and a reference to a commit."""
    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / "blobs").mkdir()
    for file in (path for path in artifact.rglob("*") if path.is_file()):
        blob = repository / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copy(file, blob)
        link = snapshot / file.relative_to(artifact)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    return snapshot


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub, with the hub switched off."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_an_artifact_of_the_hub_predicts_like_its_folder(line: Line, offline: Path) -> None:
    folder = line.artifact("segment", "fp32.onnx")
    put_into_cache(folder, offline, "phones/nano")
    found = mcd.load("hf-hub:phones/nano").predict(line.photo)
    expected = mcd.load(folder).predict(line.photo)
    assert isinstance(found, mcd.Segmentation)
    assert isinstance(expected, mcd.Segmentation)
    assert (found.class_map == expected.class_map).all()


def test_a_package_of_the_hub_is_a_folder_of_files(line: Line, offline: Path) -> None:
    put_into_cache(line.artifact("segment", "fp16.coreml"), offline, "phones/nano-coreml")
    folder = find_artifact("hf-hub:phones/nano-coreml")
    assert load_artifact(folder).runtime == "coreml"


def test_an_altered_file_of_the_hub_is_refused(line: Line, offline: Path) -> None:
    snapshot = put_into_cache(line.artifact("segment", "fp32.onnx"), offline, "phones/nano")
    model = snapshot / "model.onnx"
    data = bytearray(model.read_bytes())
    data[100] ^= 1
    model.unlink()
    model.write_bytes(data)
    with pytest.raises(ValueError, match=r"model.onnx: sha256: found"):
        mcd.load("hf-hub:phones/nano")


@pytest.mark.parametrize(
    ("reference", "error", "message"),
    [
        ("hf-hub:phones/other", OSError, "hf-hub:phones/other: artifact: could not be fetched from the hub"),
        ("hf-hub:a/b/c", ValueError, "hf-hub:a/b/c: artifact: found 'a/b/c', expected ORG/NAME"),
        ("sample:other", FileNotFoundError, "no such sample, expected sample:depth or sample:segment"),
    ],
)
def test_a_reference_to_nothing_is_refused_in_words(
    offline: Path, reference: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as found:
        find_artifact(reference)
    assert message in str(found.value)


def test_a_repository_without_an_artifact_is_refused(line: Line, offline: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "artifact.json").write_text('{"files": 1}')
    put_into_cache(tmp_path / "other", offline, "phones/other")
    with pytest.raises(ValueError, match="files: found 1, expected the files of an artifact"):
        find_artifact("hf-hub:phones/other")


def test_the_samples_are_small_whole_and_licensed() -> None:
    files = [path for task in ("segment", "depth") for path in (references.SAMPLES / task).iterdir()]
    assert sum(path.stat().st_size for path in files) <= 4e6
    assert all(word in (references.SAMPLES / "README.md").read_text() for word in ("Apache-2.0", "generated scenes"))
    assert len(sample_scenes()) == 2
    for task in ("segment", "depth"):
        artifact = load_artifact(find_artifact(f"sample:{task}"))
        assert artifact.task == task
        assert artifact.precision in ("fp32", "int8")
        assert artifact.licence == "Apache-2.0"
        figures = mcd.verify(f"sample:{task}")
        assert figures[f"{artifact.precision}_relative_error"] < 1e-4


@pytest.mark.parametrize("task", ["segment", "depth"])
def test_the_sample_flag_draws_both_scenes(task: str, tmp_path: Path) -> None:
    done = run_module("mobileclip_dense", task, "--sample", cwd=tmp_path)
    assert f"{task}-summary.json: written" in done.stdout
    pictures = sorted((tmp_path / "pictures").glob(f"*-{task}.png"))
    assert len(pictures) == 2
    found = mcd.load(f"sample:{task}").predict(sample_scenes()[0])
    values = found.class_map if isinstance(found, mcd.Segmentation) else found.depth_m  # type: ignore[union-attr]
    assert len(np.unique(values)) > 2


def test_the_sample_flag_stands_alone(tmp_path: Path) -> None:
    for arguments, message in (
        (("--sample", "x"), "--sample: found ARTIFACT beside it, expected --sample alone"),
        ((), "ARTIFACT: found none, expected a folder, sample:NAME or hf-hub:ORG/NAME"),
    ):
        done = run_module("mobileclip_dense", "segment", *arguments, check=False, cwd=tmp_path)
        assert done.returncode == 2
        assert message in " ".join(done.stderr.replace("│", " ").split())
