"""Networks of the comparison: segmenters with 150 classes, as for ADE20K. No torch; `export.py` builds them."""

from dataclasses import dataclass

from mobileclip_dense.config.encoders import ENCODERS
from mobileclip_dense.config.heads import HEADS

NUM_CLASSES = 150
REFERENCE = "swin_l-upernet"
_HEAD_CHANNELS = {"semantic_fpn": 128, "fpn_lite": 128, "upernet": 512}
PRUNED_TO = 0.7  # share of the parameters; what CamVid's runs were pruned to


@dataclass(frozen=True, kw_only=True)
class Model:
    """A network of the comparison: encoder and head as in FinetuneConfig; `pruned`: to PRUNED_TO of its parameters;
    `int8`: is also quantized."""

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
        """The network in words."""
        pruned = f", pruned to {PRUNED_TO * 100:.0f} %" if self.pruned else ""
        return f"{ENCODERS[self.encoder].label} + {HEADS[self.head].label}{pruned}"

    @property
    def precisions(self) -> tuple[str, ...]:
        """Precisions of its exports."""
        return ("fp32", "int8") if self.int8 else ("fp32",)

    @property
    def head_channels(self) -> int:
        """As `FinetuneConfig.head_channels`."""
        return _HEAD_CHANNELS[self.head]


# int8 where it is for phones: the heads for them, on the encoders for them. Finding out node by node what pays takes a
# hundred inferences, which with UPerNet is half an hour each, for models that no phone will run.
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
SMALLEST = Model(encoder="nano", head="semantic_fpn", int8=True)  # for trying out the measurement


def known_models() -> dict[str, Model]:
    """All models by name, including SMALLEST."""
    return MODELS | {SMALLEST.name: SMALLEST}


def find_models(names: tuple[str, ...]) -> list[Model]:
    """Models of these names; all of MODELS where none is named.

    Raises:
        ValueError: unknown name.
    """
    known = known_models()
    for name in names:
        if name not in known:
            raise ValueError(f"--models: found {name}, expected of {', '.join(known)}")
    return [known[name] for name in names or MODELS]
