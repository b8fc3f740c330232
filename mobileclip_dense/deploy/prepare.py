"""From a run to the networks that are exported."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from mobileclip_dense.config import FinetuneConfig, PretrainConfig
from mobileclip_dense.config.encoders import ENCODERS, last_stride
from mobileclip_dense.dense.model import build_from_run, make_upsampling_symbolic
from mobileclip_dense.deploy.networks import DensePredictor
from mobileclip_dense.deploy.pooling import make_pooling_exact
from mobileclip_dense.deploy.prepared import (
    NUM_GOLDEN,
    Prepared,
    fuse_exactly,
    golden_examples,
    require_multiples,
)
from mobileclip_dense.deploy.samples import read_pairs, sample_images
from mobileclip_dense.deploy.towers import prepare_towers
from mobileclip_dense.run.folder import Run, load_run


def prepare(folder: Path, size_px: tuple[int, int] | None) -> list[Prepared]:
    """Load a run, fuse it, and compute the golden outputs on its own held-out data.

    Args:
        size_px: height and width of the exported model, multiples of the encoder's last stride; None: what the run was
            trained with.

    Returns:
        One network of a fine-tuning run; the image and the text tower of a pretraining run.

    Raises:
        FileNotFoundError, ValueError: the run or its data cannot be read, the size does not fit, or the fused network
            is further than FUSION_TOLERANCE from the trained one.
    """
    run = load_run(folder)
    if isinstance(run.config, PretrainConfig):
        pairs = read_pairs(run.config, "val", NUM_GOLDEN, size_px or (run.config.image_size_px,) * 2)
        return list(prepare_towers(run, run.config, *pairs))
    if run.config.task == "detect":
        raise ValueError(f"{folder}: task: found detect, expected segment or depth; detectors cannot be exported")
    require_multiples(size_px or run.config.crop_size_px, last_stride(run.config.encoder))
    images = sample_images(run.config, "val", NUM_GOLDEN, size_px or run.config.crop_size_px)
    return [prepare_model(build_from_run(run.config, run).eval(), run, run.config, images)]


def prepare_model(model: nn.Module, run: Run, config: FinetuneConfig, images: npt.NDArray[np.uint8]) -> Prepared:
    """Fuse a dense model in evaluation mode; the golden outputs are those for `images`, uint8 [N,H,W,3].

    Raises:
        ValueError: as `prepare`.
    """
    names = ("logits", "class_map") if config.task == "segment" else ("depth_m",)
    normalization = ENCODERS[config.encoder].normalization
    fused: Any = fuse_exactly(model, run.folder)
    fused.backbone.encoder.fix_input_size(*images.shape[1:3])
    network = DensePredictor(fused, normalization, config.task).eval()
    make_upsampling_symbolic(network)
    make_pooling_exact(network)
    unfused = DensePredictor(model, normalization, config.task).eval()
    golden, error = golden_examples(network, unfused, images, names, run.folder)
    return Prepared(run=run, task=config.task, network=network, outputs=names, golden=golden, fusion_error=error,
                    stride=last_stride(config.encoder))  # fmt: skip
