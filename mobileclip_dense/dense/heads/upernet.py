"""mmsegmentation's UPerNet head (Xiao et al. 2018)."""

from typing import Any

from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.dense.heads.configs import DROPOUT, cross_entropy_config, decode_head_config
from mobileclip_dense.models.encoders import Encoder

_AUXILIARY_STRIDE = 16


def build_upernet(config: FinetuneConfig, encoder: Encoder, num_classes: int) -> dict[str, dict[str, Any]]:
    """The head and the auxiliary head of mmseg's configs/_base_/models/upernet_swin.py."""
    head = decode_head_config(config, encoder, num_classes, segment="UPerHead")
    head |= dict(channels=config.head_channels, dropout_ratio=DROPOUT)
    index = encoder.strides.index(_AUXILIARY_STRIDE)
    auxiliary = head | dict(type="FCNHead", in_channels=encoder.channels[index], in_index=index, channels=256,
                            num_convs=1, concat_input=False, loss_decode=cross_entropy_config(0.4))  # fmt: skip
    return dict(decode_head=head | dict(pool_scales=(1, 2, 3, 6)), auxiliary_head=auxiliary)
