"""The networks of the comparison: segmentation models with 150 classes, as for ADE20K. `export.py` builds them.

It does not import torch.
"""

from dataclasses import dataclass

from mobileclip_dense.config.encoders import ENCODERS
from mobileclip_dense.config.heads import HEADS

NUM_CLASSES = 150
REFERENCE = "swin_l-upernet"
_HEAD_CHANNELS = {"semantic_fpn": 128, "fpn_lite": 128, "upernet": 512}
PRUNED_TO = 0.7  # share of the parameters, as in the pruned CamVid runs


@dataclass(frozen=True, kw_only=True)
class Model:
    """A network of the comparison.

    Attributes:
        encoder, head: as in FinetuneConfig.
        pruned: whether it is pruned to PRUNED_TO of its parameters.
        int8: whether it is also exported in int8.
    """

    encoder: str
    head: str
    pruned: bool = False
    int8: bool = False

    @property
    def name(self) -> str:
        """The architecture, as recorded in runs and artifacts: ENCODER-HEAD[-pruned]."""
        return f"{self.encoder}-{self.head}" + ("-pruned" if self.pruned else "")

    @property
    def label(self) -> str:
        """The network as text."""
        pruned = f", pruned to {PRUNED_TO * 100:.0f} %" if self.pruned else ""
        return f"{ENCODERS[self.encoder].label} + {HEADS[self.head].label}{pruned}"

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions of its exports."""
        return ("fp32", "int8") if self.int8 else ("fp32",)

    @property
    def head_channels(self) -> int:
        """As `FinetuneConfig.head_channels`."""
        return _HEAD_CHANNELS[self.head]


# int8 only for phones: heads and encoders for phones. Choosing the nodes to quantize takes about a hundred inferences,
# which would be half an hour for each UPerNet model, and no phone will run those.
MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        *(
            Model(encoder=encoder, head=head, int8=head != "upernet")
            for encoder in ("mci0", "mci1", "mci2")
            for head in _HEAD_CHANNELS
        ),
        Model(encoder="mci2", head="semantic_fpn", pruned=True, int8=True),
        Model(encoder="mci2", head="fpn_lite", pruned=True, int8=True),
        Model(encoder="vit_b16_clip", head="upernet"),
        Model(encoder="swin_l", head="upernet"),
    )
}
SMALLEST = Model(encoder="nano", head="semantic_fpn", int8=True)  # to try the measurement


def known_models() -> dict[str, Model]:
    """All models by name, including SMALLEST."""
    return MODELS | {SMALLEST.name: SMALLEST}


def find_models(names: tuple[str, ...]) -> list[Model]:
    """The models of these names, or all of MODELS without names.

    Raises:
        ValueError: a name is unknown.
    """
    known = known_models()
    for name in names:
        if name not in known:
            raise ValueError(f"--models: found {name}, expected one or more of {', '.join(known)}")
    return [known[name] for name in names or MODELS]
