"""The dense models: their mmsegmentation configs, and loading the model of a run folder."""

import pkgutil
from pathlib import Path
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmseg.models.segmentors import EncoderDecoder
from mmseg.models.utils import Upsample
from mmseg.registry import MODELS
from mmseg.utils import register_all_modules
from torch import nn

from mobileclip_dense.artifact.palette import IGNORE_INDEX
from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.config.encoders import encoder_spec
from mobileclip_dense.config.heads import HEADS
from mobileclip_dense.dense.backbone import backbone_config
from mobileclip_dense.dense.heads.configs import head_configs
from mobileclip_dense.dense.mmcv_compat import ignore_warnings
from mobileclip_dense.models.encoders import Encoder
from mobileclip_dense.models.structure import apply_structure
from mobileclip_dense.run.folder import Run, fill_model, load_run


def model_config(config: FinetuneConfig, num_classes: int) -> ConfigDict:
    """The mmsegmentation config of a segmentor or depth estimator: encoder, neck and head.

    Raises:
        ValueError: the encoder is unknown, or the task is detect, for which mmsegmentation has no models.
    """
    if config.task == "detect":
        raise ValueError("task: found detect, expected segment or depth; dense.detector builds detectors")
    pyramid = not HEADS[config.head].on_last_map
    with torch.device("meta"):
        encoder = Encoder(config.encoder, pyramid=pyramid)
    return ConfigDict(
        type="EncoderDecoder" if config.task == "segment" else "DepthEstimator",
        data_preprocessor=preprocessor_config(config),
        backbone=backbone_config(config, pyramid=pyramid),
        **head_configs(config, encoder, num_classes),
        train_cfg=dict(),
        test_cfg=dict(mode="whole"),
    )


def preprocessor_config(config: FinetuneConfig) -> dict[str, Any]:
    """mmseg's data preprocessor: the encoder's normalization, converted from pixels in 0..1 to pixels in 0..255."""
    spec = encoder_spec(config.encoder)
    return dict(
        type="SegDataPreProcessor",
        mean=[255 * value for value in spec.normalization.mean],
        std=[255 * value for value in spec.normalization.std],
        bgr_to_rgb=True,  # mmcv's transforms expect BGR
        pad_val=0,
        seg_pad_val=IGNORE_INDEX,
        size=config.crop_size_px,
        test_cfg=dict(size_divisor=spec.strides[-1]),
    )


def load_dense_run(folder: Path) -> tuple[EncoderDecoder, Run, FinetuneConfig]:
    """The trained model of a fine-tuning run, in evaluation mode.

    Raises:
        FileNotFoundError, ValueError: see `load_run`; or it is a pretraining run; or its weights do not fit the model.
    """
    run = load_run(folder)
    if not isinstance(run.config, FinetuneConfig):
        raise ValueError(f"{folder}: run: found a pretraining run, expected one of `mobileclip-dense finetune`")
    return build_from_run(run.config, run).eval(), run, run.config


def build_model(config: FinetuneConfig, num_classes: int) -> EncoderDecoder:
    """The unpruned model of a config, randomly initialized."""
    if config.task == "detect":
        settings = pkgutil.resolve_name(HEADS[config.head].builder)(config, num_classes)
    else:
        settings = model_config(config, num_classes)
    settings["backbone"]["weights"] = None
    ignore_warnings()
    register_all_modules()  # sets mmengine's default scope, in which SegDataPreProcessor is registered
    return MODELS.build(settings)


def build_from_run(config: FinetuneConfig, run: Run) -> EncoderDecoder:
    """The model of `config` with the weights of `run`, and with its structure if the run is pruned.

    Raises:
        ValueError: the structure or the weights do not fit the model.
    """
    model = build_model(config, len(run.record["class_names"]))
    if run.structure is not None:
        try:
            apply_structure(model, run.structure)
        except ValueError as error:
            raise ValueError(f"{run.folder / 'structure.json'}: {error}") from None
    fill_model(model, run)
    return model


def make_upsampling_symbolic(model: nn.Module) -> None:
    """Replace mmseg's Upsample by torch's in place, before tracing.

    mmseg rounds the size with int(), so that tracing stores it as a constant, and a model traced for flexible sizes is
    silently wrong at all other sizes. torch's Upsample computes the same and keeps the size symbolic.
    """
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, Upsample):
                setattr(module, name, nn.Upsample(None, child.scale_factor, child.mode, child.align_corners))
