"""The encoders as mmsegmentation backbones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
from mmengine.model import BaseModule, PretrainedInit
from mmseg.registry import MODELS
from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.config.encoders import MCI, encoders_of
from mobileclip_dense.models.encoders import Encoder
from mobileclip_dense.models.weights import load_encoder_weights


@MODELS.register_module()
class PyramidEncoder(BaseModule):
    """`dict(type="PyramidEncoder", name="mci2", weights="runs/clip", drop_path_rate=0.1)`.

    mmsegmentation's own arguments for weights work too: `pretrained="runs/clip"` and
    `init_cfg=dict(type="Pretrained", checkpoint="runs/clip")`.

    In your own config, use `Encoder(name).channels` as the head's `in_channels`, and 255 times
    `Encoder(name).normalization` as the data preprocessor's `mean` and `std`.
    """

    def __init__(
        self,
        name: str,
        weights: str | None = None,
        drop_path_rate: float = 0.0,
        frozen_stages: int = 0,
        out_indices: Sequence[int] | None = None,
        batch_norm: Literal["train", "frozen", "synced"] = "train",
        pyramid: bool = True,
        pretrained: str | None = None,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ):
        """Build the encoder. `init_weights` loads the weights.

        Args:
            name: a name in `config.encoders.ENCODERS`.
            weights: run folder, checkpoint or `timm:NAME`, see `load_encoder_weights`. None: random initialization.
            drop_path_rate: stochastic depth, 0..1.
            frozen_stages: number of frozen stages. 0: none. N: the stem and the first N stages (for a ViT, N quarters
                of its blocks) have no gradients and stay in evaluation mode. The pyramid added to a ViT always trains.
            out_indices: indices of the maps to return, ascending. None: all maps.
            batch_norm: train: batch statistics. frozen: stored statistics; weight and bias still train. synced: batch
                statistics over all GPU processes; the same as train if there is only one process.
            pyramid: False: a ViT returns only its last map, at stride 16.
            pretrained: alias of `weights`.
            init_cfg: mmengine's initializers (`dict(type="TruncNormal", layer="Conv2d", std=0.02)`) and `Pretrained`.
                The `checkpoint` of `Pretrained` is an alias of `weights`; its `prefix` is the prefix of the encoder's
                keys in that file.

        Raises:
            ValueError: an argument is out of range, or two arguments name different weights.
        """
        initializers, checkpoint, prefix = _split_init_cfg(init_cfg)
        super().__init__(initializers or None)
        if batch_norm not in ("train", "frozen", "synced"):
            raise ValueError(f"batch_norm: found {batch_norm!r}, expected train, frozen or synced")
        self.encoder = Encoder(name, drop_path_rate, pyramid)
        num_stages, indices = len(self.encoder.stages()) - 1, range(len(self.encoder.strides))
        if not 0 <= frozen_stages <= num_stages:
            raise ValueError(f"frozen_stages: found {frozen_stages}, expected 0 to {num_stages}")
        self.out_indices = tuple(indices if out_indices is None else out_indices)
        if not self.out_indices or list(self.out_indices) != sorted({*self.out_indices} & {*indices}):
            expected = ", ".join(map(str, indices))
            raise ValueError(f"out_indices: found {self.out_indices}, expected some of {expected}, in ascending order")
        self.weights = _same_weights({"weights": weights, "pretrained": pretrained, "init_cfg.checkpoint": checkpoint})
        self.prefix, self.frozen_stages, self.batch_norm = prefix, frozen_stages, batch_norm
        if batch_norm == "synced" and torch.cuda.is_available() and _num_processes() > 1:
            self.encoder = convert_sync_batchnorm(self.encoder)  # torch's converter drops the activation after a norm
        for part in self._frozen():
            part.requires_grad_(False)

    def init_weights(self) -> None:
        """Run the initializers of `init_cfg`, then load `weights`. mmengine calls this once, before training."""
        if self.init_cfg:
            super().init_weights()
        if self.weights is not None:
            load_encoder_weights(self.encoder, self.weights, prefix=self.prefix)

    def train(self, mode: bool = True) -> Self:
        """Set training mode, except for the frozen parts.

        Raises:
            ValueError: `batch_norm` is synced and there is no GPU. (Evaluation needs no GPU.)
        """
        if mode and self.batch_norm == "synced" and not torch.cuda.is_available():
            raise ValueError("batch_norm: found synced without a GPU, expected train or frozen; synced needs GPUs")
        super().train(mode)
        if mode and self.batch_norm == "frozen":
            for module in self.encoder.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        for part in self._frozen():
            if isinstance(part, nn.Module):
                part.eval()
        return self

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """float [B,3,H,W], H and W multiples of the last stride -> the maps at `out_indices`, float [B,C_i,h_i,w_i]."""
        maps = self.encoder(image)
        return [one for index, one in enumerate(maps) if index in self.out_indices]

    def _frozen(self) -> list[nn.Module | nn.Parameter]:
        if self.frozen_stages == 0:
            return []
        return [part for stage in self.encoder.stages()[: self.frozen_stages + 1] for part in stage]


@MODELS.register_module()
class MCi(PyramidEncoder):
    """`dict(type="MCi", variant="mci2", weights="mobileclip_s2.pt", ...)`; other arguments as in `PyramidEncoder`."""

    def __init__(self, variant: str = "mci2", **arguments: Any):
        """Raises ValueError if `variant` is not an MCi."""
        if variant not in encoders_of(MCI):
            raise ValueError(f"variant: found {variant!r}, expected one of {', '.join(encoders_of(MCI))}")
        super().__init__(variant, **arguments)


@MODELS.register_module()
class CLIPViT(PyramidEncoder):
    """`dict(type="CLIPViT", weights="timm:vit_base_patch16_clip_224.datacompxl", ...)`: ViT-B/16 with ViTDet's pyramid.

    It returns four maps of 256 channels. Height and width of the images are any multiples of 32: the position
    embeddings are resampled. Other arguments as in `PyramidEncoder`.
    """

    def __init__(self, **arguments: Any):
        super().__init__("vit_b16_clip", **arguments)


def _split_init_cfg(
    init_cfg: dict[str, Any] | list[dict[str, Any]] | None,
) -> tuple[list[dict[str, Any]], str | None, str | None]:
    """Split `init_cfg` into initializers and the checkpoint and prefix of its `Pretrained` entry."""
    entries = [init_cfg] if isinstance(init_cfg, dict) else list(init_cfg or [])
    pretrained = [one for one in entries if one.get("type") in ("Pretrained", "mmengine.Pretrained", PretrainedInit)]
    if not pretrained:
        return entries, None, None
    if len(pretrained) > 1 or not pretrained[0].get("checkpoint"):
        raise ValueError(f"init_cfg: found {pretrained}, expected one dict(type='Pretrained', checkpoint=FILE)")
    return [one for one in entries if one not in pretrained], pretrained[0]["checkpoint"], pretrained[0].get("prefix")


def _same_weights(named: dict[str, Any]) -> str | None:
    """The weights that the given arguments name.

    Raises:
        ValueError: an argument is no run folder, file or `timm:NAME`, or two arguments differ.
    """
    given = {name: value for name, value in named.items() if value is not None}
    for name, value in given.items():
        if not isinstance(value, str | Path):
            raise ValueError(f"{name}: found {value!r}, expected the path of a run folder or file, or timm:NAME")
    if len({str(value) for value in given.values()}) > 1:
        found = ", ".join(f"{name}={str(value)!r}" for name, value in given.items())
        raise ValueError(f"{', '.join(given)}: found different weights ({found}), expected only one of these arguments")
    return next((str(value) for value in given.values()), None)


def backbone_config(config: FinetuneConfig, *, pyramid: bool = True) -> dict[str, Any]:
    """The encoder as a config for mmengine's registry, for segmentors and detectors alike."""
    return dict(
        type="PyramidEncoder",
        name=config.encoder,
        weights=config.init,
        drop_path_rate=config.drop_path_rate,
        frozen_stages=config.frozen_stages,
        batch_norm=config.batch_norm,
        pyramid=pyramid,
    )


def _num_processes() -> int:
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
