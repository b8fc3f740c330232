"""The image tower of a run, with its weights, image size and normalization, for analysis."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from open_clip.transformer import VisionTransformer as OpenClipViT
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from mobileclip_dense.artifact.hidden import is_hidden
from mobileclip_dense.artifact.images import IMAGE_SUFFIXES, load_image
from mobileclip_dense.artifact.preprocess import Normalization, crop_image
from mobileclip_dense.config import PretrainConfig
from mobileclip_dense.models.clip import build_clip, normalize_pixels
from mobileclip_dense.models.encoders import Encoder
from mobileclip_dense.models.families.family import family_of
from mobileclip_dense.run.folder import Run, fill_model, load_run

_NUM_MAPS = 4  # of networks without a pyramid


@dataclass(frozen=True, kw_only=True)
class ImageTower:
    """An image tower in evaluation mode, on the CPU.

    Attributes:
        name: name of the run's folder.
        module: module that maps images float [B,3,H,W] to features.
        trunk: its network, of timm or open_clip.
        size_px: H and W in the run's training.
        normalization: normalization of pixels in 0..1.
    """

    name: str
    module: nn.Module
    trunk: nn.Module
    size_px: tuple[int, int]
    normalization: Normalization

    @property
    def blocks(self) -> list[nn.Module]:
        """The residual blocks of a ViT or an MCi in order. Empty for other networks."""
        if isinstance(self.trunk, OpenClipViT):
            return list(self.trunk.transformer.resblocks)
        family = family_of(self.trunk)
        return [] if family is None else family.attention_blocks(self.trunk)

    @property
    def is_plain_vit(self) -> bool:
        """Whether the trunk is a plain ViT, with maps of one stride."""
        return isinstance(self.trunk, VisionTransformer | OpenClipViT)

    @property
    def num_maps(self) -> int:
        """The number of maps that `maps` returns."""
        if isinstance(self.module, Encoder):
            return len(self.module.strides)
        if self.is_plain_vit:
            return min(_NUM_MAPS, len(self.blocks))
        family = family_of(self.trunk)
        return _NUM_MAPS if family is None else family.num_maps(self.trunk)

    def prepare(self, image: npt.NDArray[np.uint8]) -> torch.Tensor:
        """uint8 [h,w,3] of any size -> float32 [1,3,H,W], resized (bilinear), cropped to `size_px` and normalized."""
        pixels = torch.from_numpy(np.ascontiguousarray(crop_image(image, *self.size_px).transpose(2, 0, 1)))
        return normalize_pixels(pixels[None], self.normalization)

    def maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The maps float [B,C,h,w] of prepared images: the pyramid, four evenly spaced blocks of a plain ViT, or the
        last maps of another network."""
        if isinstance(self.module, Encoder):
            pyramid: list[torch.Tensor] = self.module(images)
            return pyramid
        indices = self._spaced() if self.is_plain_vit else self.num_maps
        found = self.trunk.forward_intermediates(images, indices=indices, intermediates_only=True)  # type: ignore[operator]
        return list(found["image_intermediates"] if isinstance(found, dict) else found)  # a dict in open_clip

    @property
    def map_names(self) -> list[str]:
        """The names of the maps: stages of a pyramid, blocks of a ViT."""
        if isinstance(self.module, Encoder) or not self.is_plain_vit:
            return [f"stage {number + 1}" for number in range(self.num_maps)]
        return [f"block {index + 1}" for index in self._spaced()]

    def _spaced(self) -> list[int]:
        depth, number = len(self.blocks), self.num_maps
        return [depth * (k + 1) // number - 1 for k in range(number)]


def load_image_tower(folder: Path) -> ImageTower:
    """The image tower of a pretraining run, or the encoder of a fine-tuning run (pruned or not).

    Raises:
        FileNotFoundError, ValueError: see `load_run`; or the weights do not fit; or the tower has no feature maps.
    """
    run = load_run(folder)
    tower = _of_pretraining(run, run.config) if isinstance(run.config, PretrainConfig) else _of_finetuning(run)
    tower.module.eval().requires_grad_(False)
    if not hasattr(tower.trunk, "forward_intermediates"):
        raise ValueError(f"{folder}: image tower: found a {type(tower.trunk).__name__} without feature maps, "
                         "expected a ViT, an MCi or another network of timm")  # fmt: skip
    return tower


def _of_pretraining(run: Run, config: PretrainConfig) -> ImageTower:
    clip, _, normalization = build_clip(config.model, config.image_size_px)
    fill_model(clip, run)
    visual = clip.visual
    return ImageTower(name=run.folder.name, module=visual, trunk=getattr(visual, "trunk", visual),
                      size_px=(config.image_size_px, config.image_size_px), normalization=normalization)  # fmt: skip


def _of_finetuning(run: Run) -> ImageTower:
    from mobileclip_dense.dense.model import build_from_run  # a second of imports, not needed for pretraining runs

    assert not isinstance(run.config, PretrainConfig)
    encoder = build_from_run(run.config, run).backbone.encoder
    return ImageTower(name=run.folder.name, module=encoder, trunk=encoder.trunk, size_px=run.config.crop_size_px,
                      normalization=encoder.normalization)  # fmt: skip


def load_images(folder: Path, max_images: int) -> list[npt.NDArray[np.uint8]]:
    """The first `max_images` images under a folder, by name, each uint8 [h,w,3].

    Raises:
        FileNotFoundError: the folder does not exist or has no images.
        ValueError: see `load_image`.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: images: no such folder")
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(str(path.relative_to(folder)))
    )
    if not paths:
        raise FileNotFoundError(f"{folder}: images: found none, expected files ending in {', '.join(IMAGE_SUFFIXES)}")
    return [load_image(path) for path in paths[:max_images]]
