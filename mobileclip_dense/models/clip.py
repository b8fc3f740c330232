"""CLIP models built by open_clip, with its model names, state-dict keys, tokenizers and preprocessing."""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import torch
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from mobileclip_dense.artifact.preprocess import Normalization, cut_ends
from mobileclip_dense.config.encoders import ENCODERS, clip_names
from mobileclip_dense.models.families import mci  # noqa: F401  registers fastvit_mci_nano with timm

# Makes `open_clip.create_model("MobileCLIP-nano")` work after this module is imported.
open_clip.add_model_config(Path(__file__).with_name("open_clip_configs"))

OPEN_CLIP_CONFIG = "open_clip_config.json"  # see `open_clip_config`
Tokenizer = Callable[[list[str]], torch.Tensor]  # captions -> int64 [B,context_length]


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The image preprocessing that a CLIP's published weights expect.

    Attributes:
        normalization: normalization of pixels in 0..1.
        interpolation: bilinear or bicubic.
        resize_mode: shortest (resize the short side, then centre crop), squash or longest.
    """

    normalization: Normalization
    interpolation: str
    resize_mode: str


def clip_name(model: str) -> str:
    """The open_clip name of a model. For one of our encoders: the model with this image tower.

    Args:
        model: an encoder with an open_clip model (see `clip_names`), or a name from `open_clip.list_models()`.

    Raises:
        ValueError: the name is unknown, or the model has no text tower (Swin-L) or more than two towers (CoCa).
    """
    with_text = clip_names()
    names = open_clip.list_models()
    if model in with_text:
        return with_text[model]
    if model not in names:
        known = {name.lower(): name for name in (*with_text, *names)}
        close = [known[name] for name in get_close_matches(model.lower(), known, n=4, cutoff=0.5)]
        raise ValueError(f"model: found {model!r}, expected {', '.join(with_text)} or a name of open_clip.list_models()"
                         + (f"; did you mean {', '.join(close)}?" if close else ""))  # fmt: skip
    if "multimodal_cfg" in open_clip.get_model_config(model):
        raise ValueError(f"model: found {model!r}, a CoCa, expected a model with two towers")
    return model


def preprocessing_of(model: str, tag: str | None = None) -> Preprocessing:
    """The image preprocessing of a model. open_clip does not know it for weights loaded from a file.

    Models without published weights: pixels in 0..1 for our encoders, open_clip's default (OpenAI's) for others.

    Args:
        model: see `clip_name`.
        tag: tag of the published weights; None: the model's first tag.
    """
    name = clip_name(model)
    published = list_pretrained_tags_by_model(name)
    spec = next((spec for spec in ENCODERS.values() if spec.clip_name == name), None)
    if published:
        config = get_pretrained_cfg(name, tag or published[0])
    elif spec is not None:
        config = {"mean": spec.normalization.mean, "std": spec.normalization.std, "interpolation": "bilinear",
                  "resize_mode": "shortest"}  # fmt: skip
    else:
        config = asdict(PreprocessCfg())
    return Preprocessing(
        normalization=Normalization(mean=tuple(config["mean"]), std=tuple(config["std"])),
        interpolation=config["interpolation"],
        resize_mode=config["resize_mode"],
    )


def build_clip(
    model: str, image_size_px: int | None = None, *, tag: str | None = None
) -> tuple[CLIP | CustomTextCLIP, Tokenizer, Normalization]:
    """Build a CLIP with random weights, its tokenizer and its image normalization.

    The model maps (image float [B,3,H,W], text int64 [B,L]) to (image features [B,D], text features [B,D], both of
    unit norm, logit scale). A SigLIP also returns its logit bias. open_clip's record of the preprocessing is
    `model.visual.preprocess_cfg`.

    Args:
        model: see `clip_name`.
        image_size_px: height and width of the images; None: the model's default.
        tag: tag of the published weights that will be loaded, if their preprocessing differs from the model's default.

    Raises:
        ValueError: see `clip_name`.
        OSError: the tokenizer could not be downloaded from the hub.
    """
    name = clip_name(model)
    preprocessing = preprocessing_of(name, tag)
    logging.disable(logging.WARNING)  # open_clip warns that the weights are fresh, as asked for
    try:
        clip = open_clip.create_model(
            name, pretrained=None, pretrained_text=False, force_image_size=image_size_px,
            force_preprocess_cfg=_preprocess_config(preprocessing),
        )  # fmt: skip
    finally:
        logging.disable(logging.NOTSET)
    return clip, open_clip.get_tokenizer(name), preprocessing.normalization


def build_transform(
    clip: CLIP | CustomTextCLIP, normalization: Normalization, image_size_px: int
) -> Callable[[npt.NDArray[np.uint8]], torch.Tensor]:
    """The evaluation transform of a model: uint8 [H,W,3] -> float [3,image_size_px,image_size_px]."""
    recorded = PreprocessCfg(**clip.visual.preprocess_cfg)
    settings = PreprocessCfg(size=image_size_px, mean=normalization.mean, std=normalization.std,
                             interpolation=recorded.interpolation, resize_mode=recorded.resize_mode)  # fmt: skip
    transform = image_transform_v2(settings, is_train=False)
    return lambda image: transform(Image.fromarray(cut_ends(image, image_size_px, image_size_px)))


def normalize_pixels(images: torch.Tensor, normalization: Normalization) -> torch.Tensor:
    """uint8 [B,3,H,W] -> float32 of the same shape and layout, (pixel / 255 - mean) / std."""
    mean, std = (torch.tensor(v, device=images.device)[:, None, None] for v in (normalization.mean, normalization.std))
    return images.float().div_(255).sub_(mean).div_(std)


def open_clip_config(model: str, image_size_px: int | None = None, *, tag: str | None = None) -> dict[str, Any]:
    """The contents of open_clip_config.json.

    `open_clip.create_model_and_transforms("local-dir:FOLDER")` loads a folder with this file and one safetensors file,
    with the right image transform. For a file alone (`pretrained=FILE`), open_clip uses OpenAI's transform.
    """
    name = clip_name(model)
    config: dict[str, Any] = open_clip.get_model_config(name)
    if image_size_px is not None:
        config["vision_cfg"]["image_size"] = image_size_px
    return {"model_cfg": config, "preprocess_cfg": _preprocess_config(preprocessing_of(name, tag))}


def _preprocess_config(preprocessing: Preprocessing) -> dict[str, Any]:
    """The preprocessing in open_clip's format."""
    return {
        "mean": list(preprocessing.normalization.mean),
        "std": list(preprocessing.normalization.std),
        "interpolation": preprocessing.interpolation,
        "resize_mode": preprocessing.resize_mode,
    }
