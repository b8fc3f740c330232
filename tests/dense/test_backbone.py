from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import register_all_modules
from timm.layers import DropPath
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import mobileclip_dense.dense  # noqa: F401
from mobileclip_dense.artifact.artifact import load_golden
from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.config.encoders import ENCODERS
from mobileclip_dense.config.export import ToOnnxConfig
from mobileclip_dense.dense.backbone import PyramidEncoder
from mobileclip_dense.dense.model import build_model, model_config
from mobileclip_dense.deploy.onnx.exporter import to_onnx
from mobileclip_dense.models.encoders import Encoder
from mobileclip_dense.run.folder import finish_run, open_run
from mobileclip_dense.runtime.onnx_model import OnnxModel
from tests.conftest import dense_details, write_labelled_folder
from tests.models.foreign import TINY
from tests.models.test_reparam import randomize


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, spec in TINY.items():
        monkeypatch.setitem(ENCODERS, name, spec)


def config(folder: Path, encoder: str, **settings: Any) -> FinetuneConfig:
    small: dict[str, Any] = dict(neck_channels=16, head_channels=16, crop_size_px=(64, 64))
    return FinetuneConfig(data=folder / "data", out=folder / "run", encoder=encoder, **small, **settings)


def train_one_step(model: nn.Module) -> dict[str, torch.Tensor]:
    """Take one SGD step with weight decay, which changes every trainable tensor; return the state before the step."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images = [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8) for _ in range(2)]
    samples = []
    for _ in images:
        sample = SegDataSample(metainfo=dict(img_shape=(64, 64)))
        sample.gt_sem_seg = PixelData(data=torch.randint(0, 3, (1, 64, 64)))
        samples.append(sample)
    model.train()
    data = model.data_preprocessor({"inputs": images, "data_samples": samples}, training=True)
    sum(loss for name, loss in model(**data, mode="loss").items() if "loss" in name).backward()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    torch.optim.SGD(trained, lr=0.1, weight_decay=0.1).step()
    return before


def changed_by_training(model: nn.Module) -> set[str]:
    before = train_one_step(model)
    counted = model.state_dict().items()
    return {name.removeprefix("backbone.encoder.") for name, tensor in counted if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize(
    ("encoder", "frozen_stages", "frozen", "trained"),
    [
        ("nano", 2, ("trunk.stem.", "trunk.stages.0.", "trunk.stages.1."), ("trunk.stages.2.", "trunk.stages.3.")),
        ("nano", 4, ("trunk.",), ("neck.",)),
        ("tiny_vit_clip", 2,
         ("trunk.patch_embed.", "trunk.pos_embed", "trunk.cls_token", "trunk.norm_pre.", "trunk.blocks.0.",
          "trunk.blocks.1."), ("trunk.blocks.2.", "trunk.blocks.3.", "pyramid.")),
        ("tiny_vit_clip", 4, ("trunk.",), ("pyramid.0", "pyramid.1", "pyramid.2", "pyramid.3")),
        ("tiny_swin", 1, ("trunk.patch_embed.", "trunk.layers.0.", "pyramid.0."), ("trunk.layers.1.", "pyramid.1.")),
    ],
)  # fmt: skip
def test_frozen_stages_keep_weights_and_statistics_to_the_bit(
    tmp_path: Path, encoder: str, frozen_stages: int, frozen: tuple[str, ...], trained: tuple[str, ...]
) -> None:
    model = build_model(config(tmp_path, encoder, frozen_stages=frozen_stages, drop_path_rate=0.5), 3)
    changed = changed_by_training(model)
    assert not [name for name in changed if name.startswith(frozen)]
    for part in trained:
        assert [name for name in changed if name.startswith(part)], part
    modes = [
        module.training
        for name, module in model.backbone.encoder.named_modules()
        if isinstance(module, _BatchNorm | DropPath) and name.startswith(frozen)
    ]
    assert modes and not any(modes)


def test_nothing_is_frozen_unless_it_is_asked_for(tmp_path: Path) -> None:
    model = build_model(config(tmp_path, "nano"), 3)
    changed = changed_by_training(model)
    assert changed >= {name for name, _ in model.backbone.encoder.named_parameters()}
    assert "trunk.stem.0.conv_kxk.0.bn.running_mean" in changed


def test_frozen_batch_norms_keep_their_statistics_and_train_their_weights(tmp_path: Path) -> None:
    model = build_model(config(tmp_path, "nano", batch_norm="frozen"), 3)
    changed = changed_by_training(model)
    assert not [name for name in changed if name.startswith("trunk.") and ("running_" in name or "num_batches" in name)]
    assert {"trunk.stem.0.conv_kxk.0.bn.weight", "trunk.stem.0.conv_kxk.0.conv.weight"} <= changed
    assert [name for name in changed if "running_mean" in name], "the head's own train"


def test_synced_batch_norms_want_gpus_to_train_and_none_to_evaluate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = build_model(config(tmp_path, "nano", batch_norm="synced"), 3)
    assert model.eval().backbone(torch.rand(1, 3, 64, 64))[3].shape == (1, 192, 2, 2)
    with pytest.raises(ValueError, match="batch_norm: found synced without a GPU, expected train or frozen"):
        model.train()


@pytest.mark.parametrize(("num_processes", "synced"), [(1, False), (2, True)])
def test_batch_norms_are_synced_where_there_are_several_processes_on_gpus(
    monkeypatch: pytest.MonkeyPatch, num_processes: int, synced: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: num_processes)
    backbone = PyramidEncoder("nano", batch_norm="synced", frozen_stages=1)
    norms = [module for module in backbone.modules() if isinstance(module, _BatchNorm)]
    assert norms and all(isinstance(norm, nn.SyncBatchNorm) == synced for norm in norms)
    assert backbone.state_dict().keys() == PyramidEncoder("nano").state_dict().keys()
    assert not next(backbone.encoder.trunk.stem.parameters()).requires_grad


def test_synced_batch_norms_keep_the_activations_after_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """MobileCLIP-B's stem has its GELUs inside timm's BatchNormAct2d."""
    torch.manual_seed(0)
    plain = randomize(PyramidEncoder("vit_b16_mci")).eval()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    synced = PyramidEncoder("vit_b16_mci", batch_norm="synced").eval()
    synced.load_state_dict(plain.state_dict())
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for found, expected in zip(synced(image), plain(image), strict=True):
            assert torch.equal(found, expected)


def test_out_indices_choose_the_maps() -> None:
    backbone = PyramidEncoder("nano", out_indices=(1, 3)).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        maps = backbone.encoder(image)
        for found, expected in zip(backbone(image), (maps[1], maps[3]), strict=True):
            assert torch.equal(found, expected)


def test_backbones_are_found_by_the_names_a_config_gives_them(tmp_path: Path) -> None:
    register_all_modules()
    torch.save(Encoder("nano").state_dict(), tmp_path / "nano.pt")
    mci = MODELS.build(dict(type="MCi", variant="nano", weights=str(tmp_path / "nano.pt"), frozen_stages=1))
    mci.init_weights()
    expected = torch.load(tmp_path / "nano.pt", weights_only=True)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in mci.encoder.state_dict().items())
    with torch.device("meta"):
        vit = MODELS.build(dict(type="CLIPViT", frozen_stages=4, out_indices=(2,)))
    assert vit.encoder.name == "vit_b16_clip"


@pytest.mark.parametrize("kind", [dict(type="MCi", variant="nano"), dict(type="PyramidEncoder", name="tiny_vit_clip")])
@pytest.mark.parametrize(
    "words",
    [
        lambda file: dict(pretrained=file),
        lambda file: dict(init_cfg=dict(type="Pretrained", checkpoint=file)),
        lambda file: dict(init_cfg=dict(type="Pretrained", checkpoint=file, prefix="backbone.", map_location="cpu")),
        lambda file: dict(init_cfg=dict(type="Pretrained", checkpoint=file, prefix="model.backbone")),
        lambda file: dict(init_cfg=[dict(type="TruncNormal", layer="Conv2d", std=0.02),
                                    dict(type="Pretrained", checkpoint=file)]),
        lambda file: dict(pretrained=file, weights=file, init_cfg=None),
    ],
)  # fmt: skip
def test_weights_are_named_in_mmsegmentations_words_too(tmp_path: Path, kind: dict[str, Any], words: Any) -> None:
    name = kind.get("variant") or kind["name"]
    expected = Encoder(name)
    file = str(tmp_path / "segmentor.pth")
    state = {f"model.backbone.encoder.{key}": tensor for key, tensor in expected.state_dict().items()}
    torch.save({"meta": {}, "state_dict": state | {"model.decode_head.bias": torch.zeros(3)}}, file)
    backbone = MODELS.build(kind | words(file))
    backbone.init_weights()
    assert all(torch.equal(tensor, expected.state_dict()[key]) for key, tensor in backbone.encoder.state_dict().items())


def test_a_segmentors_own_pretrained_reaches_the_backbone(tmp_path: Path) -> None:
    register_all_modules()
    expected = Encoder("nano")
    torch.save(expected.trunk.state_dict(), tmp_path / "nano.pt")
    head = dict(type="FCNHead", in_channels=192, in_index=3, channels=8, num_convs=1, num_classes=3)
    settings = dict(type="EncoderDecoder", pretrained=str(tmp_path / "nano.pt"), decode_head=head)
    model = MODELS.build(ConfigDict(settings, backbone=dict(type="MCi", variant="nano")))
    model.init_weights()
    trunk = model.backbone.encoder.trunk.state_dict()
    assert all(torch.equal(tensor, expected.trunk.state_dict()[name]) for name, tensor in trunk.items())


def test_initializers_of_init_cfg_draw_the_fresh_weights() -> None:
    backbone = MODELS.build(dict(type="MCi", variant="nano", init_cfg=dict(type="Constant", layer="Conv2d", val=0.5)))
    backbone.init_weights()
    assert (next(backbone.encoder.trunk.stem.parameters()) == 0.5).all()


def test_clip_vit_takes_mmsegmentations_words() -> None:
    with torch.device("meta"):
        vit = MODELS.build(dict(type="CLIPViT", init_cfg=dict(type="Pretrained", checkpoint="no-such.pth")))
    with pytest.raises(FileNotFoundError, match=r"no-such\.pth: weights: no such file or run folder"):
        vit.init_weights()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(type="MCi", variant="nano", weights="a.pth", pretrained="b.pth"), "weights, pretrained: found different"),
        (
            dict(type="MCi", variant="nano", pretrained="a", init_cfg=dict(type="Pretrained", checkpoint="b")),
            r"pretrained, init_cfg\.checkpoint: found different weights",
        ),
        (dict(type="MCi", variant="nano", pretrained=True), "pretrained: found True, expected the path of a run"),
        (dict(type="MCi", variant="nano", init_cfg=dict(type="Pretrained")), "init_cfg: found .*, expected one dict"),
        (dict(type="MCi", variant="swin_l"), "variant: found 'swin_l', expected one of nano, mci0"),
        (dict(type="PyramidEncoder", name="nano", frozen_stages=5), "frozen_stages: found 5, expected 0 to 4"),
        (
            dict(type="PyramidEncoder", name="nano", out_indices=(3, 1)),
            r"out_indices: found \(3, 1\), expected some of",
        ),
        (dict(type="PyramidEncoder", name="nano", out_indices=()), r"out_indices: found \(\), expected some of"),
        (
            dict(type="PyramidEncoder", name="nano", batch_norm="sync"),
            "batch_norm: found 'sync', expected train, frozen",
        ),
    ],
)
def test_an_argument_out_of_range_is_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MODELS.build(arguments)


def test_the_settings_of_a_run_reach_the_backbone(tmp_path: Path) -> None:
    settings = model_config(config(tmp_path, "nano", frozen_stages=3, batch_norm="frozen", init="timm:x"), 3)
    backbone = settings["backbone"]
    assert (backbone["frozen_stages"], backbone["batch_norm"], backbone["weights"]) == (3, "frozen", "timm:x")


def test_a_vit_is_exported_for_one_size_with_its_positions_resampled_in_advance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As many positions as published models have: the exporter folds the resampling of a few thousand numbers by itself.
    published = (*TINY["tiny_vit_clip"].timm_arguments, ("img_size", 224), ("embed_dim", 48))
    monkeypatch.setitem(ENCODERS, "tiny_vit_clip", replace(TINY["tiny_vit_clip"], timm_arguments=published))
    settings = config(tmp_path, "tiny_vit_clip")
    write_labelled_folder(settings.data)
    model = build_model(settings, 3)
    torch.nn.init.normal_(model.backbone.encoder.trunk.pos_embed)
    with open_run(settings, {}):
        details = dense_details("a", "b", "c")
        finish_run(settings, model.state_dict(), {}, started=0.0, device="cpu", details=details)
    wide = ToOnnxConfig(run=settings.out, out=tmp_path / "artifacts", size_px=(32, 64))
    (folder,) = to_onnx(wide)
    resized = [node for node in onnx.load(folder / "model.onnx").graph.node if node.op_type == "Resize"]
    modes = {attribute.s for node in resized for attribute in node.attribute if attribute.name == "mode"}
    assert modes == {b"linear", b"nearest"}  # of head and neck; bicubic would be that of the position embeddings
    golden = load_golden(folder)
    image = golden["input"][:1]
    with torch.no_grad():
        mean, std = (torch.tensor(v)[:, None, None] for v in (
            TINY["tiny_vit_clip"].normalization.mean, TINY["tiny_vit_clip"].normalization.std))  # fmt: skip
        pixels = torch.from_numpy(image).permute(0, 3, 1, 2) / 255
        expected = model.eval().encode_decode((pixels - mean) / std, [{"img_shape": (32, 64)}]).numpy()
    found = OnnxModel(folder / "model.onnx")(image)
    np.testing.assert_array_equal(found["class_map"], expected.argmax(1))
    with pytest.raises(ValueError, match=r"--flexible: found size with tiny_vit_clip, whose graph is for one size"):
        to_onnx(ToOnnxConfig(run=settings.out, out=tmp_path / "artifacts", flexible="size"))
