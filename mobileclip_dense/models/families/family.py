"""The interface of a family of encoders: the feature pyramid of a timm model, and its layers and stages."""

import pkgutil
from abc import ABC, abstractmethod
from functools import cache
from typing import Any, ClassVar, Generic, TypeVar

import timm
from torch import nn

from mobileclip_dense.config.encoders import ENCODERS, EncoderSpec
from mobileclip_dense.models.expand import State

Trunk = TypeVar("Trunk", bound=nn.Module)
Part = nn.Module | nn.Parameter


class Family(ABC, Generic[Trunk]):
    """Encoders whose trunks have the same timm class. The defaults are for trunks whose maps are a pyramid already.

    Attributes:
        trunk_type: timm class of the trunks.
    """

    trunk_type: ClassVar[type[nn.Module]]

    def build_trunk(self, spec: EncoderSpec, drop_path_rate: float) -> Trunk:
        """Build the timm model of an encoder with random weights, head included."""
        trunk: Trunk = timm.create_model(spec.timm_name, drop_path_rate=drop_path_rate, **dict(spec.timm_arguments))
        return trunk

    def num_maps(self, trunk: Trunk) -> int:
        """Number of the trunk's last maps that are the input of the pyramid."""
        info: Any = trunk.feature_info
        return len(info)

    def build_pyramid(self, trunk: Trunk, *, fresh: bool) -> nn.Module:
        """Build the module that maps the trunk's maps to those of the pyramid.

        Args:
            trunk: the trunk.
            fresh: whether to add levels that are not pretrained. False: the result is the trunk's own maps.
        """
        return nn.Identity()

    def fix_input_size(self, trunk: Trunk, height: int, width: int) -> None:
        """Resample the position embeddings for one image size, in place. Does nothing without position embeddings."""

    @abstractmethod
    def layers(self, trunk: Trunk) -> list[list[Part]]:
        """The stem and the layers in the order of computation, for layer-wise learning-rate decay."""

    def stages(self, trunk: Trunk, pyramid: nn.Module) -> list[list[Part]]:
        """The stem and one stage per map of the pyramid, in the order of computation, for freezing."""
        return self.layers(trunk)

    def attention_blocks(self, trunk: Trunk) -> list[nn.Module]:
        """The residual blocks in order; empty for attention within windows."""
        return []

    def trunk_weights(self, state: State, trunk: Trunk) -> State:
        """Convert a foreign state dict of the trunk to timm's keys and the shapes of `trunk`."""
        return state

    def split_pyramid(self, state: State) -> tuple[State, State]:
        """Split a foreign state dict of the trunk into the weights of the trunk and those of the pyramid."""
        return state, {}


@cache
def load_family(path: str) -> Family[Any]:
    """The family with an import path, see `EncoderSpec.family`."""
    family: Family[Any] = pkgutil.resolve_name(path)()
    return family


def family_of(trunk: nn.Module) -> Family[Any] | None:
    """The registered family of a timm model; None if there is none for its class."""
    families = (load_family(spec.family) for spec in ENCODERS.values())
    return next((family for family in families if isinstance(trunk, family.trunk_type)), None)
