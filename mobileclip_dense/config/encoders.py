"""The registry of image encoders: what has to be known about each before it is built. Importing it needs no torch.

An encoder is added with one registration; everything else (heads, help texts, checks, tests) reads this table.
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
        family: import path of its `models.families.family.Family`, as `package.module:Class`.
        timm_name: name under which timm builds the trunk.
        strides: of the maps of the pyramid that heads get, in pixels, finest first. Images are multiples of the last.
        channels: of the same maps.
        label: name for people, e.g. "MCi2".
        description: one phrase for help texts.
        normalization: what the published weights were trained with, on pixels in 0..1.
        clip_name: the open_clip model whose image tower this is; None where there is none.
        timm_arguments: further arguments of `timm.create_model`.
        one_size: an exported graph of it takes images of one size: positions or windows are laid out in advance.
        licence: of the published weights, or where those come from; None where there are none.
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
"""Name, as of --encoder, -> specification."""


def register_encoder(name: str, spec: EncoderSpec) -> None:
    """Make an encoder known under `name` everywhere.

    Raises:
        ValueError: the name belongs to another specification.
    """
    if ENCODERS.get(name, spec) != spec:
        raise ValueError(f"encoder: found {name!r}, which is registered already, expected another name")
    ENCODERS[name] = spec


def encoder_spec(name: str) -> EncoderSpec:
    """Raises ValueError for an unknown name."""
    if name not in ENCODERS:
        raise ValueError(f"encoder: found {name!r}, expected one of {', '.join(ENCODERS)}")
    return ENCODERS[name]


def encoders_of(family: str) -> tuple[str, ...]:
    """Names of the encoders of a family."""
    return tuple(name for name, spec in ENCODERS.items() if spec.family == family)


def last_stride(name: str) -> int:
    """The last stride of an encoder: heights and widths of images are multiples of it.

    Raises:
        ValueError: there is none of that name.
    """
    return encoder_spec(name).strides[-1]


def clip_names() -> dict[str, str]:
    """Encoder -> the open_clip model whose image tower it is; encoders without one are left out."""
    return {name: spec.clip_name for name, spec in ENCODERS.items() if spec.clip_name}


def describe_encoders() -> str:
    """All encoders, for help texts."""
    return "; ".join(f"{name}: {spec.description}" for name, spec in ENCODERS.items()) + "."


register_encoder(
    "nano",
    EncoderSpec(
        family=MCI, timm_name="fastvit_mci_nano", channels=(16, 32, 96, 192), label="nano MCi",
        description="an MCi for tests and demos", clip_name="MobileCLIP-nano",
    ),
)  # fmt: skip
register_encoder(
    "mci0",
    EncoderSpec(
        family=MCI, timm_name="fastvit_mci0", channels=(64, 128, 256, 512), label="MCi0",
        description="that of MobileCLIP-S0 and MobileCLIP2-S0", clip_name="MobileCLIP2-S0", licence=_APPLE,
    ),
)  # fmt: skip
register_encoder(
    "mci1",
    EncoderSpec(
        family=MCI, timm_name="fastvit_mci1", channels=(64, 128, 256, 512), label="MCi1",
        description="that of MobileCLIP-S1", clip_name="MobileCLIP-S1", licence=_APPLE,
    ),
)  # fmt: skip
register_encoder(
    "mci2",
    EncoderSpec(
        family=MCI, timm_name="fastvit_mci2", channels=(80, 160, 320, 640), label="MCi2",
        description="that of MobileCLIP-S2", clip_name="MobileCLIP-S2", licence=_APPLE,
    ),
)  # fmt: skip
register_encoder(
    "vit_b16_clip",
    EncoderSpec(
        family=VIT, timm_name="vit_base_patch16_clip_224", channels=(256,) * 4, label="ViT-B/16",
        description="CLIP's ViT-B/16, as OpenAI, LAION, DataComp and our recipes train it", normalization=_OPENAI,
        clip_name="ViT-B-16", timm_arguments=_ANY_SIZE, one_size=True, licence="as of OpenAI, LAION or DataComp",
    ),
)  # fmt: skip
register_encoder(
    "vit_b16_mci",
    EncoderSpec(
        family=VIT, timm_name="vit_base_mci_224", channels=(256,) * 4, label="MobileCLIP-B",
        description="Apple's ViT-B/16 of MobileCLIP-B, whose patches are cut by three convolutions",
        clip_name="MobileCLIP-B", timm_arguments=_ANY_SIZE, one_size=True, licence=_APPLE,
    ),
)  # fmt: skip
register_encoder(
    "vit_b16",
    EncoderSpec(  # for what AugReg wants instead of ImageNet's normalization, see `models.foreign`
        family=VIT, timm_name="vit_base_patch16_224", channels=(256,) * 4, label="plain ViT-B/16",
        description="the plain ViT-B/16 of MAE, MAWS, DeiT III and AugReg", normalization=_IMAGENET,
        timm_arguments=_ANY_SIZE, one_size=True, licence="as of MAE, MAWS, DeiT III or AugReg",
    ),
)  # fmt: skip
register_encoder(
    "swin_l",
    EncoderSpec(  # windows shift even in stages that one window covered in pretraining, as in mmsegmentation
        family=SWIN, timm_name="swin_large_patch4_window12_384", channels=(192, 384, 768, 1536), label="Swin-L",
        description="Swin-L, of Microsoft or mmsegmentation", normalization=_IMAGENET,
        timm_arguments=(*_ANY_SIZE, ("always_partition", True)), one_size=True,
        licence="as of Microsoft or mmsegmentation",
    ),
)  # fmt: skip
