"""Evaluation of a CLIP model on held-out data: retrieval on pairs, zero-shot classification on a folder of classes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from open_clip.model import CLIP, CustomTextCLIP

from mobileclip_dense.artifact.preprocess import Normalization
from mobileclip_dense.config import PretrainConfig
from mobileclip_dense.data.captioned.shards import list_shards
from mobileclip_dense.models.clip import Tokenizer
from mobileclip_dense.pretraining.retrieval import measure_retrieval, verify_pairs
from mobileclip_dense.pretraining.zeroshot import (
    Template,
    measure_zeroshot,
    read_class_names,
    read_templates,
)
from mobileclip_dense.pretraining.zeroshot_images import verify_images


@dataclass(frozen=True, kw_only=True)
class Classes:
    """A folder in ImageNet's layout, the names of its classes and the prompt templates."""

    folder: Path
    names: list[str]
    templates: list[Template]


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The held-out data of a run, found before training.

    Attributes:
        shards: shards of pairs for retrieval. Empty: no retrieval figures.
        image_size_px: height and width of the images.
        zeroshot: the classes for zero-shot classification. None: no zero-shot figures.
    """

    shards: list[str]
    image_size_px: int
    zeroshot: Classes | None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The figures of an evaluation.

    Attributes:
        figures: figures by name.
        missing: for "retrieval" and "zero-shot", if it could not be measured: the reason.
    """

    figures: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def find_held_out(config: PretrainConfig) -> HeldOut:
    """Find the held-out data that the config names.

    Raises:
        FileNotFoundError, ValueError: a folder or file is missing or invalid.
    """
    zeroshot = None
    if (folder := config.zeroshot_data) is not None:
        names = read_class_names(folder, config.class_names)
        zeroshot = Classes(folder=folder, names=names, templates=read_templates(config.templates))
    return HeldOut(shards=list_held_out(config), image_size_px=config.image_size_px, zeroshot=zeroshot)


def verify_held_out(held_out: HeldOut, max_bad_share: float) -> None:
    """Verify the held-out data before a long training.

    Raises:
        FileNotFoundError: there are no zero-shot images.
        ValueError: no held-out pair is usable, or too many zero-shot images are unusable (see `verify_images`).
    """
    if held_out.shards:
        verify_pairs(held_out.shards)
    if held_out.zeroshot is not None:
        verify_images(held_out.zeroshot.folder, max_bad_share)


def list_held_out(config: PretrainConfig) -> list[str]:
    """The held-out shards: val/*.tar of --val-data, or all its shards if it has no val/.

    Without --val-data: val/*.tar of the first --data folder, or no shards if it has no val/, as in published data sets.

    Raises:
        FileNotFoundError: --val-data or val/ has no shards.
    """
    source = config.val_data or config.data[0]
    if (Path(source) / "val").is_dir():
        return list_shards(source, "val")
    return list_shards(source, "train") if config.val_data else []


def measure(
    model: CLIP | CustomTextCLIP, tokenizer: Tokenizer, normalization: Normalization, held_out: HeldOut, *,
    device: torch.device,
) -> Measured:  # fmt: skip
    """Measure retrieval recall and zero-shot accuracy in percent, each if `held_out` has data for it.

    If held-out data was removed or damaged during training, only its figures are missing; the run does not fail.
    """
    measured = Measured()

    def note(what: str, figures_of: Callable[[], dict[str, float]]) -> None:
        try:
            measured.figures.update(figures_of())
        except (ValueError, OSError) as error:
            measured.missing[what] = str(error)

    size_px = held_out.image_size_px
    if held_out.shards:
        note("retrieval", lambda: measure_retrieval(
            model, tokenizer, normalization, held_out.shards, image_size_px=size_px, device=device,
        ))  # fmt: skip
    if (classes := held_out.zeroshot) is not None:
        note("zero-shot", lambda: measure_zeroshot(
            model, tokenizer, normalization, classes.folder, class_names=classes.names, templates=classes.templates,
            image_size_px=size_px, device=device,
        ))  # fmt: skip
    return measured
