"""The held-out images of a fine-tuning run, with their ground truth and the predictions of its model."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from mmengine.dataset import BaseDataset, Compose
from mmengine.device import get_device
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import DATASETS

from mobileclip_dense.artifact.preprocess import resize_image
from mobileclip_dense.config import EvaluateConfig, FinetuneConfig
from mobileclip_dense.data.labelled.labelled_set import LabelledSet
from mobileclip_dense.data.labelled.layouts import find_set
from mobileclip_dense.data.labelled.scan import check_pairs
from mobileclip_dense.dense.model import build_from_run
from mobileclip_dense.dense.training.pipelines import dataloader_config
from mobileclip_dense.run.folder import Run

_SMALLEST_SIDE_PX = 32  # at this size the coarsest map of the pyramid has one cell


@dataclass(frozen=True, kw_only=True)
class View:
    """An image: path, photograph uint8 [H,W,3] RGB, truth and prediction [H,W] as class indices or metres."""

    path: str
    photograph: npt.NDArray[np.uint8]
    truth: npt.NDArray[Any]
    predicted: npt.NDArray[Any]


class ValidationSet:
    """The held-out images in the order of their names, and the model. `len()` is the number of images.

    Attributes:
        settings: the settings of the run, with the data folder that is measured on.
    """

    def __init__(
        self, config: EvaluateConfig, run: Run, settings: FinetuneConfig, predict: Callable[..., torch.Tensor]
    ):
        """Find the images and build the model.

        Args:
            predict: `predict_classes` or `predict_depth` of `evaluation.inference`.

        Raises:
            FileNotFoundError, ValueError: there are no held-out images, or their classes are not those of the run.
        """
        self.settings, folder = find_validation_set(config, run, settings)
        self.model: EncoderDecoder = build_from_run(settings, run).eval().to(get_device())
        dataset = dataloader_config(self.settings, folder, training=False)["dataset"]
        self.dataset: BaseDataset = DATASETS.build(dataset)
        self.pipelines = [Compose(_scaled(dataset["pipeline"], scale)) for scale in config.scales]
        self.scales = config.scales
        self.predict = predict
        self.window_px = settings.crop_size_px if config.mode == "slide" else None
        self.flip = config.flip
        self.length = min(len(self.dataset), config.max_images or len(self.dataset))

    def __len__(self) -> int:
        return self.length

    def view(self, index: int) -> View:
        """Read an image and its truth, and predict at the size of the truth.

        Raises:
            ValueError: see `evaluation.inference`; or a factor of --scales makes the image too small; or a file has
                changed since the scan. The message names the image.
        """
        packed = [pipeline(self.dataset.get_data_info(index)) for pipeline in self.pipelines]
        sample, images = packed[0]["data_samples"], [each["inputs"] for each in packed]
        truth = sample.get("gt_sem_seg" if self.settings.task == "segment" else "gt_depth_map").data.squeeze(0).numpy()
        self._verify_sizes(sample.img_path, images)
        try:
            predicted = self.predict(self.model, images, truth.shape, window_px=self.window_px, flip=self.flip)
        except ValueError as error:
            raise ValueError(f"{sample.img_path}: {error}") from None
        sharpest = max(images, key=lambda image: image.shape[1]).numpy()
        photograph = np.ascontiguousarray(sharpest[::-1].transpose(1, 2, 0))  # BGR [3,h,w] -> RGB [h,w,3]
        return View(
            path=sample.img_path,
            photograph=resize_image(photograph, *truth.shape),
            truth=truth,
            predicted=predicted.cpu().numpy(),
        )

    def _verify_sizes(self, path: str, images: list[torch.Tensor]) -> None:
        """Raises ValueError if --scales makes an image too small. At scale 1 images are padded instead."""
        for scale, image in zip(self.scales, images, strict=True):
            height, width = image.shape[1:]
            if scale < 1 and min(height, width) < _SMALLEST_SIDE_PX:
                raise ValueError(
                    f"{path}: --scales: found {scale:g}, which makes the image {height}x{width} pixels, "
                    f"expected sides of at least {_SMALLEST_SIDE_PX}; use larger scales"
                )


def _scaled(pipeline: list[dict[str, Any]], scale: float) -> list[dict[str, Any]]:
    """The validation pipeline with the image, but not the annotation, resized by a further factor."""
    if scale == 1:
        return pipeline
    if not any(step["type"] == "ResizeAnyShape" for step in pipeline):
        return [pipeline[0], dict(type="ResizeAnyShape", scale_factor=float(scale)), *pipeline[1:]]
    return [
        step | {"scale": tuple(round(scale * side) for side in step["scale"])}
        if step["type"] == "ResizeAnyShape"
        else step
        for step in pipeline
    ]


def validation_set_of(run: Run, settings: FinetuneConfig) -> LabelledSet:
    """The held-out images that a run was measured on, with the label convention stored in the run.

    Raises:
        ValueError: images are missing, new or unusable since then. The message names them.
    """
    with naming_changed_data(run):
        found = replace(find_set(settings.data, settings.task), train=(), class_names=tuple(run.record["class_names"]))
        found = check_pairs(_read_like(found, run), settings)
        verify_same_images(run, [pair.image.name for pair in found.val])
    return found


@contextmanager
def naming_changed_data(run: Run) -> Iterator[None]:
    """Re-raise errors of the block as a ValueError which says that the data has changed since the run was trained."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{run.folder}: the held-out images have changed since the run was trained: {error}\n"
            "Restore them, or measure on the present images with `evaluate --data`."
        ) from None


def verify_same_images(run: Run, names: Sequence[str]) -> None:
    """Raises ValueError if `names` are not the held-out images stored in the run."""
    expected = run.record["val_images"]
    if sorted(expected) == sorted(names):
        return
    gone, new = sorted(set(expected) - set(names)), sorted(set(names) - set(expected))
    differences = [f"{len(files)} {what} ({', '.join(files[:10])}{', ...' if len(files) > 10 else ''})"
                   for files, what in ((gone, "missing"), (new, "new")) if files]  # fmt: skip
    raise ValueError(f"found {len(names)} held-out images, expected {len(expected)}: {', '.join(differences)}")


def _read_like(found: LabelledSet, run: Run) -> LabelledSet:
    """The set with the label convention of the run's training data."""
    return replace(
        found,
        reduce_zero_label=run.record["reduce_zero_label"],
        ignored_label=run.record["ignored_label"],
    )


def find_validation_set(
    config: EvaluateConfig, run: Run, settings: FinetuneConfig
) -> tuple[FinetuneConfig, LabelledSet]:
    """The settings and the set to measure on: --data, or the data of the run.

    Raises:
        FileNotFoundError: there are no held-out images.
        ValueError: a file cannot be used, or the classes are not those of the run.
    """
    if config.data is None:
        return settings, validation_set_of(run, settings)
    settings = replace(
        settings, data=config.data, class_names=None, skip_bad=config.skip_bad,
        depth_units_per_m=config.depth_units_per_m or settings.depth_units_per_m,
    )  # fmt: skip
    known = tuple(run.record["class_names"])
    found = replace(find_set(config.data, settings.task, config.class_names), train=())
    if not found.val:
        raise FileNotFoundError(f"{config.data}: found {found.layout} without held-out images, expected at least one")
    declared = found.class_names  # empty if the folder has no class names; the labels then only give a minimum number
    if not declared and settings.task == "segment":
        found = _read_like(found, run)
    found = check_pairs(found, settings)
    if (declared and declared != known) or len(found.class_names) > len(known):
        raise ValueError(
            f"{config.data}: classes: found {_few(found.class_names)}, expected those of the run {run.folder}: "
            f"{_few(known)}; use data with the classes of the run, or name them with --class-names"
        )
    return settings, replace(found, class_names=known)


def _few(names: tuple[str, ...]) -> str:
    return f"{len(names)} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
