"""Selection of a state dict from a file, and errors for files without one."""

import argparse
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.data import AttributeDict
from mmengine.logging import HistoryBuffer
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from mobileclip_dense.models.encoders import Encoder
from mobileclip_dense.models.weights import load_encoder_weights

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def good() -> State:
    torch.manual_seed(0)
    return dict(Encoder("nano").trunk.state_dict())


def zeros(state: State) -> State:
    return {name: torch.zeros_like(tensor) for name, tensor in state.items()}


def under(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def averaged(state: State) -> State:
    """The state dict of torch's moving average of a model."""
    encoder = Encoder("nano")
    encoder.trunk.load_state_dict(state)
    return AveragedModel(encoder.trunk).state_dict()


AVERAGES: dict[str, tuple[Callable[[State], Any], str]] = {
    "timm": (
        lambda w: {"state_dict": zeros(w), "state_dict_ema": w},
        "'state_dict_ema', the moving average, not 'state_d",
    ),
    "DeiT": (lambda w: {"model": zeros(w), "model_ema": w, "epoch": 3}, "'model_ema', the moving average, not 'model'"),
    "alone": (lambda w: {"state_dict_ema": w}, "'state_dict_ema', the moving average\n"),
    "nested": (
        lambda w: {"net": zeros(w), "ema": {"decay": 0.9, "module": under("module.", w)}},
        "'ema', the moving average, not 'net'",
    ),
    "torch's": (
        lambda w: {"model": zeros(w), "ema_model": averaged(w)},
        "'ema_model', the moving average, not 'model'",
    ),
    "DINO": (
        lambda w: {
            "student": under("module.backbone.", zeros(w)),
            "teacher": under("backbone.", w) | {"head.mlp.0.weight": torch.zeros(3)},
        },
        "'teacher', the moving average, not 'student'",
    ),
    "our pretraining": (
        lambda w: {"model": under("visual.trunk.", zeros(w)), "average": under("visual.trunk.", w)},
        "'average', the moving average, not 'model'",
    ),
    "mmengine": (
        lambda w: {
            "meta": {"mmengine_version": "0.10.7"},
            "state_dict": under("backbone.", w),
            "ema_state_dict": under("module.backbone.", zeros(w)),
        },
        "'state_dict', where mmengine stores the moving average",
    ),
    "in one state dict": (
        lambda w: {
            "state_dict": under("model.", zeros(w)) | under("model_ema.module.", w) | {"loss.w": torch.zeros(3)}
        },
        "'model_ema.', the moving average, not 'model.'",
    ),
    "beside plain names": (
        lambda w: zeros(w) | under("ema.", w),
        "'ema.', the moving average, not the weights next to it",
    ),
    "an empty average": (
        lambda w: {"model": w, "model_ema": {"shadow_params": [torch.zeros(3)]}},
        "'model', not 'model_ema' (no state dict)",
    ),
    "none": (lambda w: {"state_dict": w, "state_dict_ema": None, "ema": 0.99}, ""),
}


@pytest.mark.parametrize("layout", AVERAGES)
def test_the_moving_average_is_taken_and_said(
    tmp_path: Path, good: State, capsys: pytest.CaptureFixture[str], layout: str
) -> None:
    write, said = AVERAGES[layout]
    torch.save(write(good), tmp_path / "w.pt")
    encoder = Encoder("nano")
    load_encoder_weights(encoder, tmp_path / "w.pt")
    assert all(torch.equal(tensor, good[name]) for name, tensor in encoder.trunk.state_dict().items())
    found = capsys.readouterr().out
    assert found.startswith(f"{tmp_path / 'w.pt'}: weights: using {said}") if said else found == ""


def test_of_safetensors_too_the_moving_average_is_taken(
    tmp_path: Path, good: State, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file(under("model.", zeros(good)) | under("ema_model.module.", good), tmp_path / "w.safetensors")
    encoder = Encoder("nano")
    load_encoder_weights(encoder, tmp_path / "w.safetensors")
    assert all(torch.equal(tensor, good[name]) for name, tensor in encoder.trunk.state_dict().items())
    assert "using 'ema_model.', the moving average" in capsys.readouterr().out


PREFIXES = ("_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.", "model.backbone.", "encoder.trunk.",
            "module.model._orig_mod.", "backbone._orig_mod.", "backbone.model.", "net.encoder.", "model.visual.trunk.",
            "_fsdp_wrapped_module.", "student.backbone.")  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_prefixes_of_wrappers_are_taken_off(tmp_path: Path, good: State, prefix: str) -> None:
    torch.save({"state_dict": under(prefix, good)}, tmp_path / "w.ckpt")
    encoder = Encoder("nano")
    load_encoder_weights(encoder, tmp_path / "w.ckpt")
    assert all(torch.equal(tensor, good[name]) for name, tensor in encoder.trunk.state_dict().items())


@pytest.mark.parametrize("prefix", ["model.", "model.backbone.", "_orig_mod.model.", "net.", "student.backbone."])
def test_what_lies_beside_the_model_is_passed_over(tmp_path: Path, good: State, prefix: str) -> None:
    others = {"loss.weight": torch.zeros(3)}
    if prefix.endswith("backbone."):
        others |= {f"{prefix.removesuffix('backbone.')}decode_head.bias": torch.zeros(3)}
    torch.save(
        {"state_dict": under(prefix, good) | (others if "backbone" in prefix else {"loss.weight": torch.zeros(3)})},
        tmp_path / "w.ckpt",
    )
    encoder = Encoder("nano")
    load_encoder_weights(encoder, tmp_path / "w.ckpt")
    assert all(torch.equal(tensor, good[name]) for name, tensor in encoder.trunk.state_dict().items())


@pytest.mark.parametrize("prefix", ["wrapped.", "my_model.encoder.", "teachers."])
def test_an_unknown_prefix_is_not_guessed(tmp_path: Path, good: State, prefix: str) -> None:
    torch.save(under(prefix, good), tmp_path / "w.ckpt")
    with pytest.raises(ValueError, match=rf"w\.ckpt: weights: not of encoder 'nano': .*left over \(trunk\.{prefix}"):
        load_encoder_weights(Encoder("nano"), tmp_path / "w.ckpt")


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "net", "network", "module", "params"])
def test_the_usual_keys_of_a_state_dict_are_known(tmp_path: Path, good: State, key: str) -> None:
    torch.save({"epoch": 3, key: good, "optimizer": {"state": {}, "param_groups": []}}, tmp_path / "w.pth")
    encoder = Encoder("nano")
    load_encoder_weights(encoder, tmp_path / "w.pth")
    assert all(torch.equal(tensor, good[name]) for name, tensor in encoder.trunk.state_dict().items())


@pytest.mark.parametrize("zipped", [True, False])
def test_what_training_scripts_keep_beside_the_weights_is_passed_over(
    tmp_path: Path, good: State, zipped: bool
) -> None:
    """mmengine's hook stores its log with names of functions. None of them is called, and no class is changed."""
    beside = {
        "message_hub": {"log_scalars": {"loss": HistoryBuffer([1.0], [1])}, "runtime_info": {"iter": np.int64(3)}},
        "meta": {"palette": np.zeros((3, 3)), "dtype": np.dtype("f4"), "best": np.float64(0.5), "flag": np.bool_(True)},
        "args": argparse.Namespace(lr=1e-3, out=Path("out")),
        "hyper_parameters": AttributeDict(width=3),
    }
    methods = dict(HistoryBuffer._statistics_methods)
    torch.save({"state_dict": good, **beside}, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    encoder = Encoder("nano")
    load_encoder_weights(encoder, tmp_path / "w.pth")
    assert all(torch.equal(tensor, good[name]) for name, tensor in encoder.trunk.state_dict().items())
    assert methods == HistoryBuffer._statistics_methods


def write_other(kind: str, path: Path, good: State) -> None:
    match kind:
        case "TorchScript":
            torch.jit.script(nn.Linear(2, 2)).save(str(path))
        case "torch.export":
            with path.open("wb") as file:
                torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),)), file)
        case "whole module":
            torch.save(nn.Linear(2, 2), path)
        case "module under a key":
            torch.save({"model": nn.Linear(2, 2)}, path)
        case "npz":
            with path.open("wb") as file:
                np.savez(file, a=np.zeros(3))
        case "zip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("weights.bin", b"0")
        case "empty" | "zeros" | "page" | "pointer" | "gzip":
            path.write_bytes({"empty": b"", "zeros": bytes(500), "page": b"<!DOCTYPE html>", "gzip": b"\x1f\x8b\x08",
                              "pointer": b"version https://git-lfs.github.com/spec/v1\n"}[kind])  # fmt: skip
        case "zeros inside":
            torch.save(good, path)
            data = path.read_bytes()
            path.write_bytes(data[: len(data) // 2] + bytes(4096) + data[len(data) // 2 + 4096 :])
        case "arrays":
            torch.save({name: tensor.numpy() for name, tensor in good.items()}, path)
        case "other average":
            torch.save({"state_dict": under("model.", good) | under("model_ema.", {"stemconv": torch.zeros(3)})}, path)
        case "number":
            torch.save(3, path)


OTHERS = {
    "TorchScript": r"found a TorchScript archive; .*torch\.save\(torch\.jit\.load",
    "torch.export": r"found an archive of torch\.export; .*torch\.save\(torch\.export\.load",
    "whole module": r"found an object of torch\.nn\.modules\.linear\.Linear, .*torch\.save\(model\.state_dict",
    "module under a key": r"found an object of torch\.nn\.modules\.linear\.Linear, .*torch\.save\(model\.state_dict",
    "npz": r"found NumPy's \.npz",
    "zip": r"found a ZIP archive that torch\.save did not write",
    "empty": "the file is empty",
    "zeros": "the file begins with zeros",
    "page": "found a web page; download the file itself",
    "pointer": "found a pointer of Git LFS; fetch the file itself",
    "gzip": "found a gzip archive; unpack it first",
    "zeros inside": "the file is damaged or cut short: Bad CRC-32",
    "arrays": "expected a state dict of tensors, found a dict of stem",
    "other average": r"found a moving average under model_ema\. with other names than under model\.; save the one",
    "number": "expected a state dict of tensors, found a int",
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("name", ["w.pt", "w.ckpt"])
def test_a_file_of_another_kind_is_named_with_a_remedy(tmp_path: Path, good: State, kind: str, name: str) -> None:
    write_other(kind, tmp_path / name, good)
    with pytest.raises(ValueError, match=rf"{name}: weights: .*{OTHERS[kind]}"):
        load_encoder_weights(Encoder("nano"), tmp_path / name)


def test_files_are_told_by_their_contents_not_by_their_names(tmp_path: Path, good: State) -> None:
    save_file(good, tmp_path / "w.bin")
    torch.save(good, tmp_path / "w.safetensors")
    for name in ("w.bin", "w.safetensors"):
        encoder = Encoder("nano")
        load_encoder_weights(encoder, tmp_path / name)
        assert all(torch.equal(tensor, good[name]) for name, tensor in encoder.trunk.state_dict().items())


def test_a_damaged_npz_is_named(tmp_path: Path) -> None:
    for contents in (b"", b"PK", b"\x93NUMPY", bytes(300)):
        (tmp_path / "vit.npz").write_bytes(contents)
        with pytest.raises(ValueError, match=r"vit\.npz: weights: expected a ViT-B/16 in Google's format"):
            load_encoder_weights(Encoder("nano"), tmp_path / "vit.npz")


@pytest.mark.parametrize("address", ["https://host/w.pth", "open-mmlab://resnet50_v1c"])
def test_an_address_is_no_file(address: str) -> None:
    with pytest.raises(ValueError, match="weights: found a URL, expected a file; download it first"):
        load_encoder_weights(Encoder("nano"), address)
