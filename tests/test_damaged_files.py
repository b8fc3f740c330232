"""Every reader meets 300 damaged files: an error in words or a sound result, no traceback and no silent wrong one."""

import io
import json
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from PIL import Image
from safetensors.torch import save

from mobileclip_dense.artifact.artifact import load_artifact
from mobileclip_dense.artifact.files import read_json
from mobileclip_dense.artifact.images import load_image
from mobileclip_dense.artifact.result import check_result
from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.data.captioned.samples import BadSample, read_sample
from mobileclip_dense.data.captioned.shards import read_samples
from mobileclip_dense.data.labelled.annotations import UnusableFile, read_class_labels, read_depth_m
from mobileclip_dense.models.sources import read_state_dict
from mobileclip_dense.run.checkpoints import load_checkpoint
from mobileclip_dense.run.folder import finish_run, load_run, open_run
from tests.benchmarks.tiny_artifact import write_artifact
from tests.conftest import dense_details
from tests.damage import NUM_DAMAGED, damaged_copies, strict_pixels, zip_is_whole
from tests.data.shards import read_reinforcement, reinforced_members, write_shard

COARSE = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def try_all(path: Path, data: bytes, read: Callable[[Path], Any]) -> list[tuple[bytes, Any]]:
    """What of the damaged copies of a file was accepted: its bytes and what was read."""
    accepted = []
    for damaged in damaged_copies(data, seed=len(data)):
        path.write_bytes(damaged)
        try:
            accepted.append((damaged, read(path)))
        except (ValueError, FileNotFoundError) as error:
            assert path.parent.name in str(error)  # in words, with the file
    assert len(accepted) < NUM_DAMAGED / 2 or path.suffix in (".bmp", ".webp")  # which have no checksums
    return accepted


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x.jpg", encoded(Image.fromarray(COARSE).resize((120, 90)), "JPEG")),
        ("progressive.jpg", encoded(Image.fromarray(COARSE).resize((120, 90)), "JPEG", progressive=True)),
        ("x.png", encoded(Image.fromarray(COARSE).resize((120, 90)), "PNG")),
        ("x.webp", encoded(Image.fromarray(COARSE).resize((120, 90)), "WEBP")),
        ("x.bmp", encoded(Image.fromarray(COARSE), "BMP")),
    ],
)
def test_damaged_pictures(tmp_path: Path, name: str, data: bytes) -> None:
    for damaged, pixels in try_all(tmp_path / name, data, load_image):
        expected = strict_pixels(damaged)
        assert expected is not None, "accepted, although a strict decoder finds damage"
        expected = expected if expected.ndim == 3 else expected[..., None].repeat(3, 2)
        # OpenCV shifts the 5 bits of a 16-bit BMP, Pillow spreads them over 0..255.
        np.testing.assert_allclose(pixels, expected, rtol=0, atol=8 if name == "x.bmp" else 0)


def test_damaged_masks_and_depth(tmp_path: Path) -> None:
    labels = Image.fromarray(COARSE[..., 0] % 5).resize((120, 90), Image.Resampling.NEAREST)
    depth = Image.fromarray(COARSE[..., 0].astype(np.uint16) * 37 + 500)
    for image, read in (
        (labels, lambda path: read_class_labels(path, False)),
        (depth, lambda path: read_depth_m(path, 1.0)),
    ):
        for damaged, values in try_all(tmp_path / "x.png", encoded(image, "PNG"), read):
            expected = strict_pixels(damaged)
            assert expected is not None, "accepted, although a strict decoder finds damage"
            np.testing.assert_array_equal(values, expected)


def test_damaged_shards(tmp_path: Path) -> None:
    whole = write_shard(tmp_path / "whole.tar", {f"{number:03}": reinforced_members(number) for number in range(3)})
    path = tmp_path / "damaged.tar"
    num_read = num_bad = 0
    for damaged in damaged_copies(whole.read_bytes(), seed=3):
        path.write_bytes(damaged)
        samples = list(read_samples(str(path)))
        assert samples, "a shard without a sample is told by a fault"
        for sample in samples:
            try:
                if sample.fault is not None:
                    raise BadSample("shard", sample.fault)
                pixels, captions = read_sample(sample.members)
                read_reinforcement(sample.members)
            except (BadSample, ValueError):
                num_bad += 1
                continue
            num_read += 1
            stored = members_by_tarfile(path)
            assert all(content in stored[f"{sample.key}.{suffix}"] for suffix, content in sample.members.items())
            np.testing.assert_array_equal(pixels, strict_pixels(sample.members["jpg"]))
            assert captions == json.loads(sample.members["syn.json"].decode("utf-8"))["syn_text"]
            if "npz" in sample.members:
                assert zip_is_whole(sample.members["npz"])
    assert num_read > 100
    assert num_bad > 100


def members_by_tarfile(path: Path) -> dict[str, list[bytes]]:
    """What Python's own reader finds under each name, up to the damage; a name may be there twice."""
    found: dict[str, list[bytes]] = {}
    with suppress(tarfile.ReadError), tarfile.open(path) as tar:
        for info in tar:
            content = tar.extractfile(info)
            found.setdefault(info.name, []).append(b"" if content is None else content.read())
    return found


def same_types(found: Any, expected: Any) -> bool:
    """Whether JSON has the types of other JSON, all the way down."""
    if isinstance(expected, dict):
        some = next(iter(expected.values()), None)  # a table's keys may be any
        return isinstance(found, dict) and all(same_types(item, expected.get(key, some)) for key, item in found.items())
    if isinstance(expected, list):
        return isinstance(found, list) and (not expected or all(same_types(item, expected[0]) for item in found))
    if isinstance(expected, float):
        return isinstance(found, int | float) and np.isfinite(found)
    return type(found) is type(expected) or (expected is None and found is None)


def test_damaged_artifacts(tmp_path: Path) -> None:
    folder = write_artifact(tmp_path / "artifact.onnx", "a name")
    for name in ("artifact.json", "model.onnx", "golden.npz"):
        path = folder / name
        whole = path.read_bytes()
        for damaged, artifact in try_all(path, whole, lambda path: load_artifact(path.parent)):
            if name != "artifact.json":
                assert damaged == whole, "accepted, although its hash is another"
            else:  # which nothing vouches for
                for file, entry in artifact.files.items():
                    assert (folder / file).stat().st_size >= 0
                    assert len(entry["sha256"]) == 64
                assert same_types(json.loads(damaged), json.loads(whole)), "accepted with a field of another type"
        path.write_bytes(whole)
    load_artifact(folder)


def test_damaged_checkpoints_and_weights(tmp_path: Path) -> None:
    weights = {f"stages.{number}.weight": torch.full((40, 9), float(number)) for number in range(4)}
    buffer = io.BytesIO()
    torch.save({"state_dict": weights, "epoch": 3}, buffer)
    for read in (lambda path: load_checkpoint(path)["state_dict"], read_state_dict):
        for _, found in try_all(tmp_path / "x.pt", buffer.getvalue(), read):
            assert found.keys() == weights.keys()
            assert all(torch.equal(tensor, weights[name]) for name, tensor in found.items())

    def read_copies(path: Path) -> dict[str, torch.Tensor]:
        return {name: tensor.clone() for name, tensor in read_state_dict(path).items()}  # which map the file

    for damaged, found in try_all(tmp_path / "x.safetensors", save(weights), read_copies):  # has no checksums
        expected = safetensors.numpy.load(damaged)
        assert found.keys() == expected.keys()
        assert all(tensor.numpy().tobytes() == expected[name].tobytes() for name, tensor in found.items())


def test_damaged_runs(tmp_path: Path) -> None:
    config = FinetuneConfig(data=tmp_path, out=tmp_path / "run")
    with open_run(config, {}):
        finish_run(config, {"weight": torch.zeros(300)}, {"mIoU": 1.0}, started=0.0, device="cpu",
                   details=dense_details("a"), structure={"layer": {"channels": 3}})  # fmt: skip
    for name in ("weights.safetensors", "structure.json", "run.json", "config.json"):
        path = config.out / name
        whole = path.read_bytes()
        for damaged, run in try_all(path, whole, lambda path: load_run(path.parent)):
            assert torch.equal(run.weights["weight"], torch.zeros(300))
            assert damaged == whole or name in ("run.json", "config.json"), "accepted, although its hash is another"
        path.write_bytes(whole)
    load_run(config.out)


def test_damaged_result_files(tmp_path: Path) -> None:
    latency = {"p50": 1.25, "p90": 1.5, "p99": 2.5, "mean": 1.3, "num_runs": 5}
    result = {
        "schema_version": 1, "artifact": "a name", "artifact_sha256": "a" * 64, "architecture": "nano",
        "device": "a-device", "system": "Linux", "runtime": "onnxruntime CPUExecutionProvider",
        "versions": {"numpy": "2.3.5"}, "num_warmup": 3, "peak_memory_mb": 20.5,
        "latency_ms_by_threads": {"1": latency, "2": latency},
    }  # fmt: skip

    def read(path: Path) -> Any:
        values = read_json(path)
        check_result(values, path)
        return values

    path = tmp_path / "result.json"
    read_back = try_all(path, json.dumps(result, indent=1).encode(), read)
    for _, values in read_back:
        assert same_types(values | {"versions": {}}, result | {"versions": {}})
        assert all(isinstance(text, str) for text in values["versions"].values())
        for figures in values["latency_ms_by_threads"].values():
            assert 0 < figures["p50"] <= figures["p90"] <= figures["p99"]


def test_damaged_masks_are_named_as_unusable_files(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    with pytest.raises(UnusableFile, match=r"x\.png: mask: cannot be decoded"):
        read_class_labels(tmp_path / "x.png", False)
