"""`python -m apps.classify ARTIFACT INPUT... --prompts ...`: which text fits a photograph. ONNX Runtime, no torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mobileclip_dense.apps.batch import BatchConfig, Demo, Drawn, Outputs, Pixels, load_for, run_batch
from mobileclip_dense.apps.drawing import add_bars, describe_shares
from mobileclip_dense.apps.prompts import embed_prompts, find_text_tower, read_prompts, require_text
from mobileclip_dense.artifact.artifact import Artifact
from mobileclip_dense.artifact.files import cache_folder
from mobileclip_dense.artifact.preprocess import crop_image
from mobileclip_dense.config.check import require_numbers


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig(BatchConfig):
    """Say which of some texts fits each photograph best (zero-shot, CLIP's way), with probabilities. ARTIFACT is the
    image tower of a pretraining run. A video gives a video."""

    prompts: tuple[str, ...] = ()
    """Texts to choose from, at least two with those of the file, such as "a photo of a dog" "a photo of a cat"."""
    prompts_file: Path | None = None
    """UTF-8 file of more of them, one to a line."""
    templates: tuple[str, ...] = ("{}",)
    """Each prompt is put in the place of {} in all of them, and its vectors are averaged; such as "a photo of a {}"."""
    text: Path | None = None
    """Artifact of the text tower of the same run; None: the one that lies beside the image tower."""
    top: int = 5
    """How many of the most likely texts are drawn; the summary holds all."""
    cache: Path | None = None
    """Folder for the vectors of prompts; None: ~/.cache/mobileclip-dense."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_numbers(self, "top", at_least=1)
        if wrong := [template for template in self.templates or ("",) if "{}" not in template]:
            raise ValueError(f"--templates: found {wrong[0]!r}, expected {{}} in it, in whose place a prompt goes")
        require_text("--templates", self.templates)


def classify(config: ClassifyConfig) -> dict[str, Any]:
    """Do every input: NAME-classify.png, classify-summary.json.

    Raises:
        FileNotFoundError, FileExistsError, ValueError: see `load_for`, `run_batch`, `read_prompts`, `find_text_tower`
            and `embed_prompts`; or the artifact does not hold its logit scale.
    """
    prompts = read_prompts(config.prompts, config.prompts_file)
    artifact, model = load_for(config, "embed-image")
    if artifact.logit_scale is None:
        raise ValueError(f"{config.artifact}/artifact.json: logit_scale: not there; export its run again")
    tower = find_text_tower(config.artifact, artifact, config.text)
    cache = config.cache if config.cache is not None else cache_folder()
    texts = embed_prompts(tower, prompts, config.templates, cache, config.threads)
    return run_batch(config, classify_demo(artifact, prompts, texts, config.top), artifact, model)


def classify_demo(artifact: Artifact, prompts: Sequence[str], texts: npt.NDArray[np.float32], top: int) -> Demo:
    """The demo of an image tower; its results are probabilities by prompt.

    Args:
        texts: unit vectors of the prompts, [N,D].
    """
    return Demo(
        name="classify",
        result_name="probabilities",
        prepare=lambda image: crop_image(image, *artifact.input_size_px),
        new_drawing=partial(_new_drawing, artifact, prompts, texts, top),
        suffixes=("-classify.png",),
        describe=lambda probabilities: describe_shares(probabilities, 2),
    )


def _new_drawing(
    artifact: Artifact, prompts: Sequence[str], texts: npt.NDArray[np.float32], top: int, _moving: bool
) -> Callable[[Pixels, Outputs], Drawn]:
    assert artifact.logit_scale is not None
    scale = artifact.logit_scale

    def draw(image: Pixels, outputs: Outputs) -> Drawn:
        vector = outputs[artifact.outputs[0].name][0].astype(np.float32)
        found = dict(zip(prompts, zero_shot(vector, texts, scale).tolist(), strict=True))
        largest = sorted(found.items(), key=lambda one: -one[1])[:top]
        return Drawn(picture=add_bars(image, largest), result=found)

    return draw


def zero_shot(
    image: npt.NDArray[np.float32], texts: npt.NDArray[np.float32], logit_scale: float
) -> npt.NDArray[np.float64]:
    """softmax(logit_scale * cosines): unit vectors [D] and [N,D] -> probabilities [N] (CLIP, arXiv 2103.00020)."""
    logits = logit_scale * (texts.astype(np.float64) @ image.astype(np.float64))
    weights = np.exp(logits - logits.max())
    return np.asarray(weights / weights.sum())
