"""The public Python API. Each function imports what it needs when it is called.

Names that are imported `as` themselves belong to the API; `mobileclip_dense.__all__` lists all names.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from mobileclip_dense.artifact.targets import TARGETS
from mobileclip_dense.config import EvaluateConfig as EvaluateConfig
from mobileclip_dense.config import FinetuneConfig as FinetuneConfig
from mobileclip_dense.config import PretrainConfig as PretrainConfig
from mobileclip_dense.config import typed_values
from mobileclip_dense.config.encoders import ENCODERS
from mobileclip_dense.config.heads import HEADS
from mobileclip_dense.extras import needing_extra
from mobileclip_dense.runtime.model import Model as Model
from mobileclip_dense.runtime.model import load_artifact_model
from mobileclip_dense.runtime.predictions import Depth as Depth
from mobileclip_dense.runtime.predictions import Detections as Detections
from mobileclip_dense.runtime.predictions import Embedding as Embedding
from mobileclip_dense.runtime.predictions import Labels as Labels
from mobileclip_dense.runtime.predictions import Segmentation as Segmentation
from mobileclip_dense.runtime.references import find_artifact

if TYPE_CHECKING:
    from open_clip.model import CLIP, CustomTextCLIP
    from torch import nn

    from mobileclip_dense.models.encoders import Encoder
    from mobileclip_dense.run.folder import Run


def load(path: str | Path, *, device: str = "cpu", threads: int | None = None) -> Model:
    """Load a run or an artifact for prediction.

    A run and its fp32 artifact predict the same: the network of a run is fused and runs in PyTorch at the input size
    and with the preprocessing of the artifact.

        model = load("sample:segment")
        found = model.predict("street.jpg")  # Segmentation
        found.class_map.shape, found.shares, found.overlay()

        load("runs/clip").predict("street.jpg", prompts=["a red car", "a blue car"]).best

    Args:
        path: a run folder, an artifact folder, `sample:segment`, `sample:depth`, or `hf-hub:ORG/NAME`.
        device: of an artifact, an execution provider of ONNX Runtime (cpu, cuda, coreml, ...); of a run, a device of
            torch. A Core ML artifact ignores it, and needs a Mac.
        threads: of an artifact, threads of ONNX Runtime; of a run, of torch in this process. None: one for each core.

    Returns:
        A model whose `predict` returns `Segmentation`, `Depth`, `Detections`, `Embedding` or `Labels`.

    Raises:
        FileNotFoundError, OSError, ValueError: nothing usable is there, or the device is not available.
        MissingExtra: a run needs the extra `train`; a Core ML artifact needs `export`.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"threads: found {threads}, expected at least 1")
    folder = find_artifact(path)
    if not (folder / "config.json").is_file():
        with needing_extra(f"{path}", "export"):
            return load_artifact_model(folder, num_threads=threads, device=device)
    with needing_extra(f"{path}: a run", "train"):
        import torch

        from mobileclip_dense.deploy.run_model import load_run_model
        from mobileclip_dense.run.folder import load_run
    if threads is not None:
        torch.set_num_threads(threads)
    return load_run_model(load_run(folder), device=device)


def export(
    run: str | Path,
    target: str = "onnx",
    precision: str | Sequence[str] | None = None,
    size_px: tuple[int, int] | None = None,
    out: str | Path = "artifacts",
    **settings: Any,
) -> list[Path]:
    """Export a run, as `mobileclip-dense export TARGET RUN` does; every artifact is compared with PyTorch first.

        (folder,) = export("runs/segment", "coreml", "fp16", size_px=(512, 512))

    Args:
        target: onnx, coreml or a registered target. precision: one or several names, see `mobileclip-dense export
            TARGET --help`; None: fp32 for onnx, fp16 for coreml. size_px: height and width of the input; None: what the
            run was trained with. out: folder in which the folders of the artifacts are created.
        settings: further fields of `ToOnnxConfig` or `ToCoreMLConfig`, such as `flexible`, `allow_slower` or `force`.

    Returns:
        The folders of the artifacts. A pretraining run gives an image tower and a text tower.

    Raises:
        ValueError: the run cannot be exported, or an artifact is too far from PyTorch. FileExistsError: an artifact
            exists. FileNotFoundError: the run or its data is missing. MissingExtra: needs the extra `export`.
    """
    known = {name: one for name, one in TARGETS.items() if one.export is not None and one.settings is not None}
    if target not in known:
        raise ValueError(f"target: found {target!r}, expected one of {', '.join(known)}")
    if precision is not None:
        settings["precision"] = (precision,) if isinstance(precision, str) else tuple(precision)
    kind, action = known[target].settings, known[target].export
    assert kind is not None and action is not None
    with needing_extra("export", "export"):
        config = resolve_name(kind)(run=Path(run), size_px=size_px, out=Path(out), **settings)
        folders: list[Path] = resolve_name(action)(config)
    return folders


def verify(artifact: str | Path) -> dict[str, float]:
    """Check the files of an artifact against their hashes and its outputs against PyTorch's, see `mobileclip-dense
    verify`.

    Returns:
        The measured distances to PyTorch by name, as in `artifact.json`.

    Raises:
        FileNotFoundError, ValueError: a file is missing or altered, or an output is too far from PyTorch.
        MissingExtra: a Core ML artifact needs the extra `export`.
    """
    from mobileclip_dense.config.export import VerifyConfig

    with needing_extra("verify", "export"):
        from mobileclip_dense.deploy.verify import verify

        return verify(VerifyConfig(artifact=str(artifact)))


def create_encoder(name: str, weights: str | Path | None = None) -> "Encoder":
    """Build an image encoder that returns a feature pyramid, for a head of your own.

        encoder = create_encoder("mci2", weights="runs/clip")
        maps = encoder(images)  # float [B,channels[i],H/strides[i],W/strides[i]] for each of encoder.strides

    Args:
        name: see `list_encoders`. weights: a run, a checkpoint of open_clip, timm, Apple or mmsegmentation, or
            `timm:NAME`; None: fresh weights.

    Returns:
        A module in training mode. It takes float [B,3,H,W] images, normalized with `encoder.normalization`; H and W
        are multiples of the last stride.

    Raises:
        ValueError: unknown name, or the weights do not fit. FileNotFoundError, OSError: the weights cannot be read.
        MissingExtra: needs the extra `train`.
    """
    with needing_extra("create_encoder", "train"):
        from mobileclip_dense.models.encoders import Encoder
        from mobileclip_dense.models.weights import load_encoder_weights
    encoder = Encoder(name)
    if weights is not None:
        load_encoder_weights(encoder, weights)
    return encoder


def create_clip(name: str, weights: str | Path | None = None) -> "CLIP | CustomTextCLIP":
    """Build a CLIP model of open_clip: image tower and text tower.

        clip = create_clip("mci2", weights="datacompdr")  # MobileCLIP-S2, fetched from the hub

    Args:
        name: an encoder with a text tower (nano, mci0, mci1, mci2), or a name of `open_clip.list_models()`.
        weights: a pretraining run, a checkpoint of open_clip or Apple, or a tag of open_clip's published weights; None:
            fresh weights.

    Returns:
        A module in training mode. `open_clip.get_tokenizer` has the tokenizer; `clip.visual.preprocess_cfg` has the
        preprocessing.

    Raises:
        ValueError: unknown name, or the weights do not fit. FileNotFoundError, OSError: the weights cannot be read.
        MissingExtra: needs the extra `train`.
    """
    with needing_extra("create_clip", "train"):
        from mobileclip_dense.models.clip import build_clip, clip_name
        from mobileclip_dense.models.sources import published_tag
        from mobileclip_dense.models.weights import load_clip_weights
    tag = None if weights is None else published_tag(clip_name(name), weights)
    clip = build_clip(name, tag=tag)[0]
    if weights is not None:
        load_clip_weights(clip, weights, model=name)
    return clip


def fuse(module: "nn.Module") -> "nn.Module":
    """Fold branches, BatchNorm and LayerScale into the convolutions of a copy of a module in evaluation mode.

        fused = fuse(create_encoder("mci2", weights="runs/clip").eval())

    The outputs agree to a relative error of 1e-5 in float32 and 1e-10 in float64 (arXiv 2303.14189, section 3.2).

    Raises:
        ValueError: the module is in training mode. MissingExtra: needs the extra `train`.
    """
    with needing_extra("fuse", "train"):
        from mobileclip_dense.models.reparam import fuse_model
    return fuse_model(module)


def pretrain(config: PretrainConfig) -> "Run":
    """Pretrain an encoder with its text tower, as `mobileclip-dense pretrain` does; resumes an interrupted run.

        run = pretrain(create_config("nano-scenes", data=("scenes/shards",), out="runs/clip"))
        run.record["metrics"]

    Returns:
        The run, with its folder, config, record (run.json) and weights.

    Raises:
        FileNotFoundError, ValueError: the data or the settings cannot be used. FileExistsError: the run exists.
        MissingExtra: needs the extra `train`.
    """
    with needing_extra("pretrain", "train"):
        from mobileclip_dense.pretraining.loop import pretrain
        from mobileclip_dense.run.folder import load_run
    pretrain(config)
    return load_run(config.out)


def finetune(config: FinetuneConfig) -> "Run":
    """Fine-tune an encoder with a dense head, as `mobileclip-dense finetune` does; resumes an interrupted run.

        run = finetune(create_config("nano-segment", data="scenes/ade", init="runs/clip", out="runs/segment"))

    Returns:
        The run, with its folder, config, record (run.json) and weights.

    Raises:
        FileNotFoundError, ValueError: data, weights or settings cannot be used. FileExistsError: the run exists.
        MissingExtra: needs the extra `train`.
    """
    with needing_extra("finetune", "train"):
        from mobileclip_dense.dense.training.train import finetune
        from mobileclip_dense.run.folder import load_run
    finetune(config)
    return load_run(config.out)


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Measure a fine-tuned run on held-out images, as `mobileclip-dense evaluate` does.

        evaluate(EvaluateConfig(run=Path("runs/segment")))["figures"]["mIoU"]

    Returns:
        The contents of evaluation.json: `figures`, `classes`, `images`, settings and versions.

    Raises:
        FileNotFoundError, ValueError: the run or its data cannot be used. FileExistsError: the evaluation exists.
        MissingExtra: needs the extra `train`.
    """
    with needing_extra("evaluate", "train"):
        from mobileclip_dense.artifact.files import read_json
        from mobileclip_dense.dense.evaluation.evaluate import evaluate
    return read_json(evaluate(config) / "evaluation.json")


def list_encoders() -> list[str]:
    """Names of the registered encoders."""
    return list(ENCODERS)


def list_heads(task: str | None = None) -> list[str]:
    """Names of the registered heads, of one task (segment, depth, detect) or of all."""
    return [name for name, spec in HEADS.items() if task is None or task in spec.tasks]


def list_recipes() -> list[str]:
    """Names of the recipes for `create_config`, without their debug twins (NAME-debug)."""
    return [name for name in _recipes() if not name.endswith("-debug")]


def create_config(recipe: str, **settings: Any) -> PretrainConfig | FinetuneConfig:
    """The settings of a recipe, with some of them replaced.

        create_config("mci2-fpn-ade20k", data="ADEChallengeData2016", init="runs/clip", out="runs/segment")

    Args:
        recipe: see `list_recipes`. settings: fields of `PretrainConfig` or `FinetuneConfig`; `data` and `out` are
            required.

    Raises:
        ValueError: unknown recipe or setting, `data` or `out` is missing, or a value is out of range.
    """
    recipes = _recipes()
    if recipe not in recipes:
        raise ValueError(f"recipe: found {recipe!r}, expected one of {', '.join(list_recipes())}")
    return _with_settings(recipes[recipe](), recipe, settings)


def _recipes() -> dict[str, Any]:
    from mobileclip_dense.recipes import finetuning, pretraining

    return {**pretraining.RECIPES, **finetuning.RECIPES}


def _with_settings(config: Any, recipe: str, settings: dict[str, Any]) -> Any:
    if unknown := sorted(set(settings) - {field.name for field in dataclasses.fields(config)}):
        raise ValueError(f"{recipe}: found unknown settings {', '.join(unknown)}, expected fields of "
                         f"{type(config).__name__}")  # fmt: skip
    if missing := [name for name in ("data", "out") if name not in settings]:
        raise ValueError(f"{recipe}: found no {' and no '.join(missing)}, expected a value for each")
    given = typed_values(type(config), settings)
    if isinstance(config, PretrainConfig) and isinstance(given["data"], str | Path):
        given["data"] = (str(given["data"]),)
    return dataclasses.replace(config, **given)
