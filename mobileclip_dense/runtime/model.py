"""A model that is ready to predict, whether it was loaded from an artifact or from a run."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from mobileclip_dense.artifact.artifact import Artifact
from mobileclip_dense.artifact.files import cache_folder
from mobileclip_dense.artifact.images import load_image, to_rgb
from mobileclip_dense.artifact.preprocess import crop_image, resize_image
from mobileclip_dense.runtime.accuracy import resize_map
from mobileclip_dense.runtime.predictions import Depth, Detections, Embedding, Labels, Segmentation, zero_shot
from mobileclip_dense.runtime.predictor import LoadedModel, load_model
from mobileclip_dense.runtime.prompts import embed_prompts, find_text_tower, read_prompts

ImageLike = str | Path | Image.Image | npt.NDArray[np.uint8]
Prediction = Segmentation | Depth | Detections | Embedding | Labels
EmbedPrompts = Callable[[tuple[str, ...]], npt.NDArray[np.float32]]
_SMALL = 256  # classes that fit uint8


class Model(Protocol):
    """A loaded run or artifact.

    Attributes:
        task: segment, depth, detect or embed-image. class_names: by class index; empty for depth and towers.
    """

    task: str
    class_names: tuple[str, ...]

    def predict(self, image: ImageLike, prompts: Sequence[str] | None = None) -> Prediction:
        """Predict for one image of any size and shape.

        Args:
            image: a file (JPEG, PNG, WebP or BMP), a PIL image, or uint8 [H,W,3] RGB.
            prompts: at least two texts, for an image tower: gives `Labels` instead of an `Embedding`.

        Raises:
            FileNotFoundError, ValueError: the image cannot be read, or the model takes no prompts.
        """


class ArtifactModel:
    """A segmenter, depth estimator or image tower, described by an `Artifact`; see `Model`.

    Args:
        loaded: the model in a runtime. embed: turns prompts into unit vectors [N,D]; None: the model takes no prompts.
    """

    def __init__(self, loaded: LoadedModel, embed: EmbedPrompts | None = None):
        self.artifact: Artifact = loaded.artifact
        self.task, self.class_names = loaded.artifact.task, loaded.artifact.class_names
        self._predict = loaded.predict
        # Images usually share their prompts, which need to be embedded only once.
        self._embed = None if embed is None else lru_cache(maxsize=8)(embed)

    def predict(self, image: ImageLike, prompts: Sequence[str] | None = None) -> Prediction:
        """See `Model.predict`."""
        pixels = read_pixels(image)
        if self.task == "embed-image":
            return self._label(pixels, prompts)
        if prompts is not None:
            raise ValueError(f"{self.artifact.name}: prompts: found some, but a model for {self.task} takes none")
        outputs = self._predict(resize_image(pixels, *self.artifact.input_size_px)[None])
        return dense_prediction(self.artifact, pixels, outputs)

    def _label(self, pixels: npt.NDArray[np.uint8], prompts: Sequence[str] | None) -> Embedding | Labels:
        outputs = self._predict(crop_image(pixels, *self.artifact.input_size_px)[None])
        vector = outputs[self.artifact.outputs[0].name][0].astype(np.float32)
        if prompts is None:
            return Embedding(vector=vector)
        if self._embed is None or self.artifact.logit_scale is None:
            raise ValueError(f"{self.artifact.name}: prompts: found some, but this model has no text tower")
        checked = read_prompts(prompts, None)
        return zero_shot(vector, self._embed(tuple(checked)), checked, self.artifact.logit_scale)


def dense_prediction(
    artifact: Artifact, image: npt.NDArray[np.uint8], outputs: dict[str, npt.NDArray[np.generic]]
) -> Segmentation | Depth:
    """The outputs of a segmenter or depth estimator as a prediction at the image's own size.

    Args:
        image: uint8 [H,W,3] RGB. outputs: of the model for this image, by name.
    """
    if artifact.task == "depth":
        small = outputs["depth_m"][0].astype(np.float32)
        return Depth(image=image, depth_m=resize_map(small, *image.shape[:2]).astype(np.float32))
    dtype = np.uint8 if len(artifact.class_names) <= _SMALL else np.int32
    class_map: npt.NDArray[np.integer] = resize_map(outputs["class_map"][0], *image.shape[:2]).astype(dtype)
    return Segmentation(image=image, class_map=class_map, class_names=artifact.class_names, palette=artifact.palette)


def read_pixels(image: ImageLike) -> npt.NDArray[np.uint8]:
    """The pixels of a file, a PIL image or an array, uint8 [H,W,3] RGB.

    Raises:
        FileNotFoundError, ValueError: the file cannot be read, or the array is not uint8 [H,W,3].
    """
    if isinstance(image, str | Path):
        return load_image(Path(image))
    if isinstance(image, Image.Image):
        return to_rgb(image)
    found: Any = getattr(image, "dtype", type(image).__name__), list(getattr(image, "shape", ()))
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image: found {found[0]} {found[1]}, expected a path, a PIL image or a uint8 array [H,W,3]")
    if 0 in image.shape:
        raise ValueError(f"image: found an array of shape {found[1]}, expected at least one pixel")
    return np.ascontiguousarray(image)


def load_artifact_model(folder: Path, *, num_threads: int | None = None, device: str = "cpu") -> ArtifactModel:
    """Load an artifact; prompts are embedded by the text tower of the same run that lies beside it.

    Raises:
        FileNotFoundError, ValueError: see `load_model`; or the artifact is a text tower.
    """
    loaded = load_model(folder, num_threads=num_threads, device=device)
    if loaded.artifact.task == "embed-text":
        raise ValueError(f"{folder}: task: found embed-text, expected a model of images; load the image tower, which "
                         f"finds this one for its prompts")  # fmt: skip

    def embed(prompts: tuple[str, ...]) -> npt.NDArray[np.float32]:
        tower = find_text_tower(folder, loaded.artifact, None)
        return embed_prompts(tower, prompts, ("{}",), cache_folder(), num_threads)

    return ArtifactModel(loaded, embed if loaded.artifact.task == "embed-image" else None)
