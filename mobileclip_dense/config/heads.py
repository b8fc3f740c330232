"""The registry of heads: the properties of each head that are needed before it is built. No torch."""

from dataclasses import dataclass
from typing import Literal

Task = Literal["segment", "depth", "detect"]

_ROOM = "mobileclip_dense.dense.heads"


@dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """A head, including its neck and auxiliary head if it has them.

    Attributes:
        tasks: tasks that the head supports.
        builder: import path, in the form `package.module:function`, of the function that builds the head's configs for
            mmengine's registry. For segment and depth: (config, encoder, num_classes) -> dict with decode_head and,
            optionally, neck and auxiliary_head. For detect: (config, num_classes) -> config of the whole model.
        label: display name, e.g. "SemanticFPN".
        description: short description for help texts; empty if the name is enough.
        on_last_map: whether the head reads a ViT's last map directly, without a newly initialized pyramid.
        pools_to_one_pixel: whether the head pools to one pixel. BatchNorm then needs at least two images in training.
        prunable: import path of the function (decode_head) -> convolutions whose output channels may be pruned; None if
            there are none.
    """

    tasks: tuple[Task, ...]
    builder: str
    label: str
    description: str = ""
    on_last_map: bool = False
    pools_to_one_pixel: bool = False
    prunable: str | None = None


HEADS: dict[str, HeadSpec] = {}
"""Name (the value of --head) -> specification."""


def register_head(name: str, spec: HeadSpec) -> None:
    """Register a head under a name.

    Raises:
        ValueError: another specification is registered under this name.
    """
    if HEADS.get(name, spec) != spec:
        raise ValueError(f"head: found {name!r}, which is registered already, expected another name")
    HEADS[name] = spec


def heads_of(task: Task) -> tuple[str, ...]:
    """Names of the heads that support a task."""
    return tuple(name for name, spec in HEADS.items() if task in spec.tasks)


def describe_heads() -> str:
    """A list of all heads with their tasks, for help texts."""
    return "; ".join(
        f"{name} ({', '.join(part for part in (spec.description, ' or '.join(spec.tasks)) if part)})"
        for name, spec in HEADS.items()
    )  # fmt: skip


register_head(
    "semantic_fpn",
    HeadSpec(
        tasks=("segment", "depth"), builder=f"{_ROOM}.semantic_fpn:build_semantic_fpn", label="SemanticFPN",
        prunable=f"{_ROOM}.semantic_fpn:prunable_convolutions",
    ),
)  # fmt: skip
register_head(
    "fpn_lite",
    HeadSpec(
        tasks=("segment", "depth"), builder=f"{_ROOM}.fpn_lite:build_fpn_lite", label="lite FPN",
        description="for phones", prunable=f"{_ROOM}.fpn_lite:prunable_convolutions",
    ),
)  # fmt: skip
register_head(
    "upernet",
    HeadSpec(
        tasks=("segment",), builder=f"{_ROOM}.upernet:build_upernet", label="UPerNet", pools_to_one_pixel=True
    ),
)  # fmt: skip
register_head(
    "deconv",
    HeadSpec(
        tasks=("depth",), builder=f"{_ROOM}.deconvolution:build_deconvolution", label="deconvolutions",
        on_last_map=True,
    ),
)  # fmt: skip
register_head(
    "linear",
    HeadSpec(
        tasks=("segment", "depth"), builder=f"{_ROOM}.linear:build_linear", label="linear", description="a probe",
        on_last_map=True,
    ),
)  # fmt: skip
register_head(
    "mask_rcnn",
    HeadSpec(
        tasks=("detect",), builder="mobileclip_dense.dense.detector:detector_config", label="Mask R-CNN"
    ),
)  # fmt: skip
