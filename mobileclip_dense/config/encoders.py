"""The registry of image encoders: the properties of each encoder that are needed before it is built. No torch.

To add an encoder, register it. Heads, help texts, checks and tests read this registry.
"""

from dataclasses import dataclass
from typing import Any

from mobileclip_dense.artifact.preprocess import Normalization

MCI = "mobileclip_dense.models.families.mci:MCiFamily"
VIT = "mobileclip_dense.models.families.vit:ViTFamily"
SWIN = "mobileclip_dense.models.families.swin:SwinFamily"

_UNIT_RANGE = Normalization(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
_IMAGENET = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
_OPENAI = Normalization(mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711))
_ANY_SIZE = (("dynamic_img_size", True),)
_APPLE = "apple-amlr"


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """An image encoder.

    Attributes:
        family: import path of the encoder's `models.families.family.Family`, in the form `package.module:Class`.
        timm_name: name of the model in timm.
        strides: strides of the feature pyramid's maps, in pixels, finest map first. The height and width of an image
            are multiples of the last stride.
        channels: channels of the feature pyramid's maps.
        label: display name, e.g. "MCi2".
        description: short description for help texts.
        normalization: normalization that the published weights expect, for pixels in 0..1.
        clip_name: open_clip model with this image tower; None if there is none.
        timm_arguments: extra arguments of `timm.create_model`.
        one_size: whether an exported graph is fixed to one input size (position embeddings or windows are precomputed).
        licence: licence or origin of the published weights; None if there are none.
    """

    family: str
    timm_name: str
    strides: tuple[int, ...] = (4, 8, 16, 32)
    channels: tuple[int, ...]
    label: str
    description: str
    normalization: Normalization = _UNIT_RANGE
    clip_name: str | None = None
    timm_arguments: tuple[tuple[str, Any], ...] = ()
    one_size: bool = False
    licence: str | None = None


ENCODERS: dict[str, EncoderSpec] = {}
"""Name (the value of --encoder) -> specification."""


def register_encoder(name: str, spec: EncoderSpec) -> None:
    """Register an encoder under a name.

    Raises:
        ValueError: another specification is registered under this name.
    """
    if ENCODERS.get(name, spec) != spec:
        raise ValueError(f"encoder: found {name!r}, which is registered already, expected another name")
    ENCODERS[name] = spec


def encoder_spec(name: str) -> EncoderSpec:
    """The specification of an encoder. Raises ValueError if the name is unknown."""
    if name not in ENCODERS:
        raise ValueError(f"encoder: found {name!r}, expected one of {', '.join(ENCODERS)}")
    return ENCODERS[name]


def encoders_of(family: str) -> tuple[str, ...]:
    """Names of the encoders of a family."""
    return tuple(name for name, spec in ENCODERS.items() if spec.family == family)


def last_stride(name: str) -> int:
    """The last stride of an encoder, in pixels. The height and width of an image are multiples of it.

    Raises:
        ValueError: the name is unknown.
    """
    return encoder_spec(name).strides[-1]


def clip_names() -> dict[str, str]:
    """Encoder -> open_clip model with this image tower. Encoders without such a model are not included."""
    return {name: spec.clip_name for name, spec in ENCODERS.items() if spec.clip_name}


def describe_encoders() -> str:
    """A list of all encoders, for help texts."""
    return "; ".join(f"{name}: {spec.description}" for name, spec in ENCODERS.items()) + "."


register_encoder(
    "nano",
    EncoderSpec(
        family=MCI, timm_name="fastvit_mci_nano", channels=(16, 32, 96, 192), label="nano MCi",
        description="a small MCi for tests and demos", clip_name="MobileCLIP-nano",
    ),
)  # fmt: skip
register_encoder(
    "mci0",
    EncoderSpec(
        family=MCI, timm_name="fastvit_mci0", channels=(64, 128, 256, 512), label="MCi0",
        description="encoder of MobileCLIP-S0 and MobileCLIP2-S0", clip_name="MobileCLIP2-S0", licence=_APPLE,
    ),
)  # fmt: skip
register_encoder(
    "mci1",
    EncoderSpec(
        family=MCI, timm_name="fastvit_mci1", channels=(64, 128, 256, 512), label="MCi1",
        description="encoder of MobileCLIP-S1", clip_name="MobileCLIP-S1", licence=_APPLE,
    ),
)  # fmt: skip
register_encoder(
    "mci2",
    EncoderSpec(
        family=MCI, timm_name="fastvit_mci2", channels=(80, 160, 320, 640), label="MCi2",
        description="encoder of MobileCLIP-S2", clip_name="MobileCLIP-S2", licence=_APPLE,
    ),
)  # fmt: skip
register_encoder(
    "vit_b16_clip",
    EncoderSpec(
        family=VIT, timm_name="vit_base_patch16_clip_224", channels=(256,) * 4, label="ViT-B/16",
        description="CLIP's ViT-B/16 (OpenAI, LAION, DataComp, our recipes)", normalization=_OPENAI,
        clip_name="ViT-B-16", timm_arguments=_ANY_SIZE, one_size=True, licence="as of OpenAI, LAION or DataComp",
    ),
)  # fmt: skip
register_encoder(
    "vit_b16_mci",
    EncoderSpec(
        family=VIT, timm_name="vit_base_mci_224", channels=(256,) * 4, label="MobileCLIP-B",
        description="ViT-B/16 of MobileCLIP-B, with a stem of three convolutions",
        clip_name="MobileCLIP-B", timm_arguments=_ANY_SIZE, one_size=True, licence=_APPLE,
    ),
)  # fmt: skip
register_encoder(
    "vit_b16",
    EncoderSpec(  # AugReg's weights expect another normalization, see `models.foreign`
        family=VIT, timm_name="vit_base_patch16_224", channels=(256,) * 4, label="plain ViT-B/16",
        description="ViT-B/16 of MAE, MAWS, DeiT III and AugReg", normalization=_IMAGENET,
        timm_arguments=_ANY_SIZE, one_size=True, licence="as of MAE, MAWS, DeiT III or AugReg",
    ),
)  # fmt: skip
register_encoder(
    "swin_l",
    EncoderSpec(  # as in mmsegmentation, windows shift also in stages that a single window covered in pretraining
        family=SWIN, timm_name="swin_large_patch4_window12_384", channels=(192, 384, 768, 1536), label="Swin-L",
        description="Swin-L of Microsoft or mmsegmentation", normalization=_IMAGENET,
        timm_arguments=(*_ANY_SIZE, ("always_partition", True)), one_size=True,
        licence="as of Microsoft or mmsegmentation",
    ),
)  # fmt: skip
