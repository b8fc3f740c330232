"""The interface of a family of encoders: how a trunk of timm becomes a pyramid, and what it is made of."""

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
    """Encoders whose trunks are of one class of timm. The defaults hold for trunks that end with a pyramid themselves.

    Attributes:
        trunk_type: the class of the trunks.
    """

    trunk_type: ClassVar[type[nn.Module]]

    def build_trunk(self, spec: EncoderSpec, drop_path_rate: float) -> Trunk:
        """The timm model of an encoder with fresh weights, its head included."""
        trunk: Trunk = timm.create_model(spec.timm_name, drop_path_rate=drop_path_rate, **dict(spec.timm_arguments))
        return trunk

    def num_maps(self, trunk: Trunk) -> int:
        """How many of the trunk's last maps the pyramid is made of."""
        info: Any = trunk.feature_info
        return len(info)

    def build_pyramid(self, trunk: Trunk, *, fresh: bool) -> nn.Module:
        """The module from the trunk's maps to those of the pyramid.

        Args:
            fresh: False: without levels that no pretraining knows; the trunk's own maps are then the result.
        """
        return nn.Identity()

    def fix_input_size(self, trunk: Trunk, height: int, width: int) -> None:
        """Lay out positions for images of this size, in place; nothing where there are no positions of the image."""

    @abstractmethod
    def layers(self, trunk: Trunk) -> list[list[Part]]:
        """The stem and the layers in the order of computation; layer-wise learning-rate decay is by these."""

    def stages(self, trunk: Trunk, pyramid: nn.Module) -> list[list[Part]]:
        """The stem and as many stages as the pyramid has maps, in the order of computation; these can be frozen."""
        return self.layers(trunk)

    def attention_blocks(self, trunk: Trunk) -> list[nn.Module]:
        """The residual blocks in order; empty where attention stays inside windows."""
        return []

    def trunk_weights(self, state: State, trunk: Trunk) -> State:
        """A foreign state dict of the trunk under timm's keys, with the shapes of `trunk`."""
        return state

    def split_pyramid(self, state: State) -> tuple[State, State]:
        """A foreign state dict of the trunk -> that of the trunk alone, that of the pyramid which lies among it."""
        return state, {}


@cache
def load_family(path: str) -> Family[Any]:
    """The family that `EncoderSpec.family` names."""
    family: Family[Any] = pkgutil.resolve_name(path)()
    return family


def family_of(trunk: nn.Module) -> Family[Any] | None:
    """The registered family of any timm model; None where its class belongs to none."""
    families = (load_family(spec.family) for spec in ENCODERS.values())
    return next((family for family in families if isinstance(trunk, family.trunk_type)), None)
