"""`mobileclip-dense convert-weights`: convert weights to a folder that open_clip loads with the right transform."""

import copy
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import CLIP, CustomTextCLIP
from safetensors.torch import save

from mobileclip_dense.artifact.files import write_json
from mobileclip_dense.artifact.outputs import CONVERTED, claim_folder, staged_folder
from mobileclip_dense.config import ConvertWeightsConfig, PretrainConfig
from mobileclip_dense.models.clip import (
    OPEN_CLIP_CONFIG,
    Preprocessing,
    Tokenizer,
    build_clip,
    clip_name,
    open_clip_config,
    preprocessing_of,
)
from mobileclip_dense.models.expand import is_fused
from mobileclip_dense.models.sources import published_tag
from mobileclip_dense.models.weights import ForeignWeights, fill_clip, read_clip_weights
from mobileclip_dense.run.folder import load_run

_MAX_RELATIVE_ERROR = 1e-4  # float32; a wrong key or fusion gives at least 1e-1
_CAPTIONS = ["a photo of a cone", "two red spheres on a wooden floor"]


def convert_weights(config: ConvertWeightsConfig) -> None:
    """Write weights.safetensors (both towers in train form, float32) and open_clip_config.json to `config.out`.

    Before the folder is renamed to its final name, open_clip loads it and must reproduce the features of the source.
    The features of a fused source are computed with its fused convolutions, so that the expansion is checked too.

    Raises:
        FileExistsError: the folder exists and `config.force` is off.
        FileNotFoundError, OSError: see `load_clip_weights`.
        ValueError: see `load_clip_weights`; the source is a fine-tuned or pruned run; or the features differ or are
            not finite.
    """
    name, source = clip_name(config.model), Path(config.source)
    inputs = {"the source": source}
    claim_folder(config.out, CONVERTED, force=config.force, inputs=inputs)
    tag = published_tag(name, config.source)
    size_px = _image_size_of(source) if (source / "run.json").is_file() else None
    clip, tokenizer, _ = build_clip(name, size_px, tag=tag)
    foreign = read_clip_weights(clip, config.source, model=config.model)
    fill_clip(clip, foreign, f"{config.source}: weights: not of model {config.model!r}")
    with staged_folder(config.out, CONVERTED, force=config.force, inputs=inputs) as folder:
        (folder / "weights.safetensors").write_bytes(save(clip.state_dict()))
        write_json(folder / OPEN_CLIP_CONFIG, open_clip_config(name, size_px, tag=tag))
        stock = open_clip.create_model(f"local-dir:{folder}")
        errors = measure_distance(stock, source_form(clip, foreign), tokenizer)
        if not max(errors.values()) <= _MAX_RELATIVE_ERROR:
            raise ValueError(f"{config.source}: weights: open_clip's features differ from the source's by {errors}, "
                             f"expected at most {_MAX_RELATIVE_ERROR}; nothing was written")  # fmt: skip
    print(_summary(config, name, stock, foreign, preprocessing_of(name, tag), errors))


def _image_size_of(folder: Path) -> int:
    """The image size of a pretraining run, in pixels. Raises ValueError if it is another kind of run."""
    run = load_run(folder)
    if isinstance(run.config, PretrainConfig):
        return run.config.image_size_px
    parent = f"its initial weights, {run.config.init}" if run.config.init else "a run of `mobileclip-dense pretrain`"
    raise ValueError(f"{folder}: run: found a {'fine-tuned' if run.structure is None else 'pruned'} run, which has no "
                     f"text tower, expected a pretraining run; convert {parent}; use this run with "
                     "`mobileclip-dense finetune --init` or export it")  # fmt: skip


def source_form(clip: CLIP | CustomTextCLIP, foreign: ForeignWeights) -> CLIP | CustomTextCLIP:
    """A copy of the model with the foreign weights in their original form: blocks that are fused there are fused."""
    model = copy.deepcopy(clip)
    if is_fused(foreign.state):
        for name, module in list(model.named_modules()):
            if f"{name}.reparam_conv.weight" in foreign.state:
                module.reparameterize()
        model.load_state_dict(foreign.state)
    return model


@torch.inference_mode()
def measure_distance(
    model: CLIP | CustomTextCLIP, reference: CLIP | CustomTextCLIP, tokenizer: Tokenizer
) -> dict[str, float]:
    """Relative error of the image and text features on two noise images and two captions: |model - ref| / |ref|."""
    height, width = model.visual.image_size
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    texts = tokenizer(_CAPTIONS)
    model.eval(), reference.eval()
    pairs = {
        "image": (model.encode_image(images), reference.encode_image(images)),
        "text": (model.encode_text(texts), reference.encode_text(texts)),
    }
    return {tower: float((found - expected).norm() / expected.norm()) for tower, (found, expected) in pairs.items()}


def _summary(
    config: ConvertWeightsConfig, name: str, clip: Any, foreign: ForeignWeights, preprocessing: Preprocessing,
    errors: dict[str, float],
) -> str:  # fmt: skip
    image = [p.numel() for p in clip.visual.parameters()]
    others = [p.numel() for tower, p in clip.named_parameters() if not tower.startswith("visual.")]
    normalization, file = preprocessing.normalization, config.out / "weights.safetensors"
    height, width = clip.visual.image_size
    rows = {
        "source": f"{config.source} ({foreign.form})",
        "image tower": f"{sum(image) / 1e6:.2f} M parameters in {len(image)} tensors",
        "text tower": f"{sum(others) / 1e6:.2f} M parameters in {len(others)} tensors, logit scale included",
        "images": f"{height}x{width} px, {preprocessing.interpolation}, {preprocessing.resize_mode}, pixels in 0..1, "
                  f"mean {normalization.mean}, std {normalization.std}",
        "difference": f"image features {errors['image']:.1e}, text features {errors['text']:.1e} (relative, "
                      "open_clip against the source)",
        "open_clip": f'create_model_and_transforms("local-dir:{config.out}"), get_tokenizer("{name}")',
        "or": f'create_model_and_transforms("{name}", pretrained="{file}", image_mean={normalization.mean}, '
              f'image_std={normalization.std}, image_interpolation="{preprocessing.interpolation}", '
              f'image_resize_mode="{preprocessing.resize_mode}", force_image_size={height})',
    }  # fmt: skip
    if hasattr(clip.visual, "trunk"):
        rows["timm"] = (
            f'create_model("{open_clip.get_model_config(name)["vision_cfg"]["timm_model_name"]}", '
            f"num_classes={clip.visual.trunk.num_classes}).load_state_dict({{name[13:]: tensor for name, tensor in "
            f'safetensors.torch.load_file("{file}").items() if name.startswith("visual.trunk.")}})'
        )
    if is_fused(foreign.state):
        rows["note"] = "equal in evaluation mode; to continue training, convert the weights from before the fusion"
    return "\n".join([f"{config.out}:", *(f"  {label:<12} {text}" for label, text in rows.items())])
