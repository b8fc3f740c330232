"""The two towers of a pretraining run, for zero-shot classification and retrieval on a device."""

from open_clip import SimpleTokenizer
from open_clip.model import CustomTextCLIP

from mobileclip_dense.config import PretrainConfig
from mobileclip_dense.config.encoders import MCI, encoders_of
from mobileclip_dense.deploy.networks import ImageTower, TextTower
from mobileclip_dense.deploy.prepared import (
    NUM_GOLDEN,
    Prepared,
    fuse_exactly,
    golden_examples,
    predict,
    require_multiples,
)
from mobileclip_dense.deploy.samples import read_pairs
from mobileclip_dense.models.clip import build_clip
from mobileclip_dense.run.folder import Run, fill_model

_IMAGE, _TEXT = ("image_embedding",), ("text_embedding",)


def prepare_towers(run: Run, config: PretrainConfig, size_px: tuple[int, int]) -> list[Prepared]:
    """The image tower, fused, and the text tower of a pretraining run, with golden examples of its held-out pairs.

    Raises:
        FileNotFoundError, ValueError: the weights do not fit, the shards cannot be read, or fusion is not exact.
    """
    clip, tokenizer, normalization = build_clip(config.model, config.image_size_px)
    if not (isinstance(clip, CustomTextCLIP) and isinstance(tokenizer, SimpleTokenizer)):
        known = ", ".join(encoders_of(MCI))
        raise ValueError(f"{run.folder}: model: found {config.model}, expected one with an MCi image tower and CLIP's "
                         f"tokenizer, such as {known}; other towers are not exported")  # fmt: skip
    stride = int(clip.visual.trunk.feature_info[-1]["reduction"])
    require_multiples(size_px, stride)
    fill_model(clip, run)
    clip.eval()
    images, captions = read_pairs(config, "val", NUM_GOLDEN, size_px)
    network = ImageTower(fuse_exactly(clip.visual, run.folder), normalization).eval()
    unfused = ImageTower(clip.visual, normalization).eval()
    golden, error = golden_examples(network, unfused, images, _IMAGE, run.folder)
    text, tokens = TextTower(clip.text).eval(), tokenizer(captions).numpy()
    scale = float(clip.logit_scale.detach().exp())
    return [
        Prepared(run=run, task="embed-image", network=network, outputs=_IMAGE, golden=golden, fusion_error=error,
                 stride=stride, logit_scale=scale),
        Prepared(run=run, task="embed-text", network=text, outputs=_TEXT, fusion_error=0.0, logit_scale=scale,
                 tokenizer=tokenizer, golden={"input": tokens, **predict(text, tokens, _TEXT)}),
    ]  # fmt: skip
