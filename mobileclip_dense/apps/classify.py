"""`mobileclip-dense classify ARTIFACT INPUT... --prompts ...`: zero-shot classification of photographs. No torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mobileclip_dense.apps.batch import BatchConfig, Demo, Drawn, Outputs, Pixels, load_for, run_batch
from mobileclip_dense.apps.drawing import add_bars, describe_shares
from mobileclip_dense.artifact.artifact import Artifact
from mobileclip_dense.artifact.files import cache_folder
from mobileclip_dense.artifact.preprocess import crop_image
from mobileclip_dense.config.check import require_numbers
from mobileclip_dense.runtime.predictions import zero_shot
from mobileclip_dense.runtime.prompts import embed_prompts, find_text_tower, read_prompts, require_text
from mobileclip_dense.runtime.references import find_artifact


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig(BatchConfig):
    """Find which of several texts describes each photograph best (zero-shot classification), with probabilities.
    ARTIFACT is the image tower of a pretraining run. A video gives a video."""

    prompts: tuple[str, ...] = ()
    """Texts to choose from, such as "a photo of a dog" "a photo of a cat"; at least two, --prompts-file included."""
    prompts_file: Path | None = None
    """UTF-8 text file with more prompts, one per line."""
    templates: tuple[str, ...] = ("{}",)
    """Templates such as "a photo of a {}". Each prompt replaces {} in every template, and the vectors are averaged."""
    text: str | None = None
    """Artifact of the text tower of the same run; None: the one in the same folder as the image tower."""
    top: int = 5
    """Number of the most likely texts to draw; the summary holds all."""
    cache: Path | None = None
    """Cache folder for prompt embeddings; None: ~/.cache/mobileclip-dense."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_numbers(self, "top", at_least=1)
        if wrong := [template for template in self.templates or ("",) if "{}" not in template]:
            raise ValueError(f"--templates: found {wrong[0]!r}, expected {{}} in it, which a prompt replaces")
        require_text("--templates", self.templates)


def classify(config: ClassifyConfig) -> dict[str, Any]:
    """Process every input: NAME-classify.png, classify-summary.json.

    Raises:
        FileNotFoundError, FileExistsError, OSError, ValueError: see `load_for`, `run_batch`, `read_prompts`,
            `find_text_tower` and `embed_prompts`; or the artifact has no logit scale.
    """
    prompts = read_prompts(config.prompts, config.prompts_file)
    model = load_for(config, "embed-image")
    if model.artifact.logit_scale is None:
        raise ValueError(f"{config.artifact}/artifact.json: logit_scale: found null, expected a number; export the run "
                         f"again")  # fmt: skip
    given = None if config.text is None else find_artifact(config.text)
    tower = find_text_tower(model.folder, model.artifact, given)
    cache = config.cache if config.cache is not None else cache_folder()
    texts = embed_prompts(tower, prompts, config.templates, cache, config.threads)
    return run_batch(config, classify_demo(model.artifact, prompts, texts, config.top), model)


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
        found = zero_shot(vector, texts, prompts, scale).probabilities
        largest = sorted(found.items(), key=lambda one: -one[1])[:top]
        return Drawn(picture=add_bars(image, largest), result=found)

    return draw
