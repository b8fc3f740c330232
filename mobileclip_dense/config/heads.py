"""The registry of heads: what has to be known about each before it is built. Importing it needs no torch."""

from dataclasses import dataclass
from typing import Literal

Task = Literal["segment", "depth", "detect"]

_ROOM = "mobileclip_dense.dense.heads"


@dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """A head, with its neck and auxiliary head where it has them.

    Attributes:
        tasks: what it can predict.
        builder: import path, as `package.module:function`, of what builds its configs for mmengine's registry. For
            segment and depth: (config, encoder, num_classes) -> dict with decode_head and, where the head has them,
            neck and auxiliary_head. For detect: (config, num_classes) -> the config of the whole model.
        label: name for people, e.g. "SemanticFPN".
        description: one phrase for help texts; empty where the name says it.
        on_last_map: it stands on a ViT's own last map, not on a pyramid of fresh weights.
        pools_to_one_pixel: in training BatchNorm needs two images there.
        prunable: import path of (decode_head) -> the convolutions whose outputs pruning may shrink; None: it has none.
    """

    tasks: tuple[Task, ...]
    builder: str
    label: str
    description: str = ""
    on_last_map: bool = False
    pools_to_one_pixel: bool = False
    prunable: str | None = None


HEADS: dict[str, HeadSpec] = {}
"""Name, as of --head, -> specification."""


def register_head(name: str, spec: HeadSpec) -> None:
    """Make a head known under `name` everywhere.

    Raises:
        ValueError: the name belongs to another specification.
    """
    if HEADS.get(name, spec) != spec:
        raise ValueError(f"head: found {name!r}, which is registered already, expected another name")
    HEADS[name] = spec


def heads_of(task: Task) -> tuple[str, ...]:
    """Names of the heads that a task can have."""
    return tuple(name for name, spec in HEADS.items() if task in spec.tasks)


def describe_heads() -> str:
    """All heads with their tasks, for help texts."""
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
