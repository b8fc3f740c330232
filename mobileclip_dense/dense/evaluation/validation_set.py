"""The held-out images of a fine-tuning run, each with its truth and with what the run's model says of it."""

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

from mobileclip_dense.artifact.palette import IGNORE_INDEX
from mobileclip_dense.artifact.preprocess import resize_image
from mobileclip_dense.config import EvaluateConfig, FinetuneConfig
from mobileclip_dense.data.labelled.labelled_set import LabelledSet
from mobileclip_dense.data.labelled.layouts import find_set
from mobileclip_dense.data.labelled.scan import check_pairs
from mobileclip_dense.dense.model import build_from_run
from mobileclip_dense.dense.training.pipelines import dataloader_config
from mobileclip_dense.run.folder import Run

_SMALLEST_SIDE_PX = 32  # the coarsest map of the pyramid has one cell then


@dataclass(frozen=True, kw_only=True)
class View:
    """One image: its file, photograph uint8 [H,W,3] RGB, truth and prediction [H,W], class indices or metres."""

    path: str
    photograph: npt.NDArray[np.uint8]
    truth: npt.NDArray[Any]
    predicted: npt.NDArray[Any]


class HeldOut:
    """The images, in the order of their names.

    Attributes:
        settings: those of the run, with the data that is used. `len()`: how many images.
    """

    def __init__(
        self, config: EvaluateConfig, run: Run, settings: FinetuneConfig, predict: Callable[..., torch.Tensor]
    ):
        """Find the images and build the model.

        Args:
            predict: `predict_classes` or `predict_depth` of `evaluation.inference`.

        Raises:
            FileNotFoundError, ValueError: there are none, or they have other classes than the run.
        """
        self.settings, folder = held_out_set(config, run, settings)
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
        """Read an image and its truth, and predict at the truth's size.

        Raises:
            ValueError: see `evaluation.inference`; or a factor of --scales makes the image too small; or a file is not
                what the scan found. The message names the image.
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
        """At its usual size an image of any shape is measured, padded, as in `finetune`; below, there is a limit."""
        for scale, image in zip(self.scales, images, strict=True):
            height, width = image.shape[1:]
            if scale < 1 and min(height, width) < _SMALLEST_SIDE_PX:
                raise ValueError(f"{path}: --scales: found {scale:g}, at which the image has {height}x{width} pixels, "
                                 f"expected sides of at least {_SMALLEST_SIDE_PX}; use larger scales")  # fmt: skip


def _scaled(pipeline: list[dict[str, Any]], scale: float) -> list[dict[str, Any]]:
    """A validation pipeline that resizes the image by a further factor; the annotation keeps its size."""
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


def set_of_run(run: Run, settings: FinetuneConfig) -> LabelledSet:
    """The held-out images that a run was measured on, their labels read as its record says.

    Raises:
        ValueError: they are not there any more, or others, or cannot be used now; names the files.
    """
    with since_training(run):
        found = replace(find_set(settings.data, settings.task), train=(), class_names=tuple(run.record["class_names"]))
        found = check_pairs(_read_like(found, run), settings)
        verify_same_images(run, [pair.image.name for pair in found.val])
    return found


@contextmanager
def since_training(run: Run) -> Iterator[None]:
    """Errors about the data get what they mean: the run was measured on it once."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise ValueError(f"{run.folder}: its held-out images have changed since it was trained: {error}\n"
                         "Restore them, or measure on what is there now with `evaluate --data`.") from None  # fmt: skip


def verify_same_images(run: Run, names: Sequence[str]) -> None:
    """Raises ValueError if these are not the held-out images that the run's record names (runs of older versions have
    their number alone)."""
    expected = run.record.get("val_images")
    if expected is None and len(names) != run.record["num_val_images"]:
        raise ValueError(f"found {len(names)} held-out images, expected {run.record['num_val_images']}")
    if expected is None or sorted(expected) == sorted(names):
        return
    gone, new = sorted(set(expected) - set(names)), sorted(set(names) - set(expected))
    differences = [f"{len(files)} {what} ({', '.join(files[:10])}{', ...' if len(files) > 10 else ''})"
                   for files, what in ((gone, "missing"), (new, "new")) if files]  # fmt: skip
    raise ValueError(f"found {len(names)} held-out images, expected {len(expected)}: {', '.join(differences)}")


def _read_like(found: LabelledSet, run: Run) -> LabelledSet:
    """The set with the label convention that the run was trained with."""
    return replace(
        found,
        reduce_zero_label=run.record["reduce_zero_label"],
        ignored_label=run.record.get("ignored_label", IGNORE_INDEX),
    )


def held_out_set(config: EvaluateConfig, run: Run, settings: FinetuneConfig) -> tuple[FinetuneConfig, LabelledSet]:
    """Where the held-out images are and how their labels are read.

    Raises:
        FileNotFoundError: there are none. ValueError: a file cannot be used, or the classes are not the run's.
    """
    if config.data is None:
        return settings, set_of_run(run, settings)
    settings = replace(
        settings, data=config.data, class_names=None, skip_bad=config.skip_bad,
        depth_units_per_m=config.depth_units_per_m or settings.depth_units_per_m,
    )  # fmt: skip
    known = tuple(run.record["class_names"])
    found = replace(find_set(config.data, settings.task, config.class_names), train=())
    if not found.val:
        raise FileNotFoundError(f"{config.data}: found {found.layout} without held-out images; there is nothing to "
                                "measure on")  # fmt: skip
    declared = found.class_names  # a folder without names of its own shows only how many classes it needs
    if not declared and settings.task == "segment":
        found = _read_like(found, run)
    found = check_pairs(found, settings)
    if (declared and declared != known) or len(found.class_names) > len(known):
        raise ValueError(f"{config.data}: classes: found {_few(found.class_names)}, the run {run.folder} knows "
                         f"{_few(known)}; evaluate it on data with its own, or name them by --class-names")  # fmt: skip
    return settings, replace(found, class_names=known)


def _few(names: tuple[str, ...]) -> str:
    return f"{len(names)} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
