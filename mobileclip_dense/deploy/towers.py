"""The two towers of a pretraining run, for zero-shot classification and retrieval on a device."""

import numpy as np
import numpy.typing as npt
from open_clip import SimpleTokenizer
from open_clip.model import CustomTextCLIP

from mobileclip_dense.config import PretrainConfig
from mobileclip_dense.config.encoders import MCI, encoders_of
from mobileclip_dense.deploy.networks import ImageTower, TextTower
from mobileclip_dense.deploy.prepared import (
    Prepared,
    fuse_exactly,
    golden_examples,
    predict,
    require_multiples,
)
from mobileclip_dense.models.clip import build_clip
from mobileclip_dense.run.folder import Run, fill_model

_IMAGE, _TEXT = ("image_embedding",), ("text_embedding",)


def prepare_towers(
    run: Run, config: PretrainConfig, images: npt.NDArray[np.uint8], captions: list[str]
) -> tuple[Prepared, Prepared]:
    """Prepare the image tower, fused, and the text tower of a pretraining run.

    Args:
        images, captions: of the golden examples; uint8 [N,H,W,3] at the size of the exported model, and N texts.

    Raises:
        ValueError: the towers cannot be exported, the weights do not fit, or fusion is not exact.
    """
    clip, tokenizer, normalization = build_clip(config.model, config.image_size_px)
    if not (isinstance(clip, CustomTextCLIP) and isinstance(tokenizer, SimpleTokenizer)):
        known = ", ".join(encoders_of(MCI))
        raise ValueError(f"{run.folder}: model: found {config.model}, expected one with an MCi image tower and CLIP's "
                         f"tokenizer, such as {known}; other towers are not exported")  # fmt: skip
    stride = int(clip.visual.trunk.feature_info[-1]["reduction"])
    require_multiples(images.shape[1:3], stride)
    fill_model(clip, run)
    clip.eval()
    network = ImageTower(fuse_exactly(clip.visual, run.folder), normalization).eval()
    unfused = ImageTower(clip.visual, normalization).eval()
    golden, error = golden_examples(network, unfused, images, _IMAGE, run.folder)
    text, tokens = TextTower(clip.text).eval(), tokenizer(captions).numpy()
    scale = float(clip.logit_scale.detach().exp())
    return (
        Prepared(run=run, task="embed-image", network=network, outputs=_IMAGE, golden=golden, fusion_error=error,
                 stride=stride, logit_scale=scale),
        Prepared(run=run, task="embed-text", network=text, outputs=_TEXT, fusion_error=0.0, logit_scale=scale,
                 tokenizer=tokenizer, golden={"input": tokens, **predict(text, tokens, _TEXT)}),
    )  # fmt: skip
