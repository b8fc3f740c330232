"""The image encoders behind one interface: an RGB image in, a feature pyramid out."""

from typing import Any

import torch
from torch import nn

from mobileclip_dense.config.encoders import encoder_spec
from mobileclip_dense.models.families.family import Part, load_family


class Encoder(nn.Module):
    """A timm trunk and what makes its maps a pyramid.

    Attributes:
        trunk: the timm model, its keys untouched: `stages.0...`; head, final norm and final convolution removed.
        pyramid: of a ViT the `SimpleFeaturePyramid`, of Swin the `OutputNorms`; of an MCi the identity.
        strides, channels: of the maps, as `EncoderSpec` says; of a ViT without its pyramid those of its one map.
        normalization: what to do to pixels in 0..1 before the trunk.
    """

    def __init__(self, name: str, drop_path_rate: float = 0.0, pyramid: bool = True):
        """Build an encoder with fresh weights.

        Args:
            pyramid: False: a ViT gives its last map alone, as it was pretrained; others are pyramids by themselves.

        Raises:
            ValueError: unknown name.
        """
        super().__init__()
        spec = encoder_spec(name)
        self.name, self.normalization = name, spec.normalization
        self.family = load_family(spec.family)
        self.trunk = self.family.build_trunk(spec, drop_path_rate)
        self.num_maps = self.family.num_maps(self.trunk)
        self.pyramid = self.family.build_pyramid(self.trunk, fresh=pyramid)
        self.strides, self.channels = spec.strides, spec.channels
        if not pyramid:
            own: list[dict[str, Any]] = list(self.trunk.feature_info)[-self.num_maps :]
            self.strides = tuple(int(info["reduction"]) for info in own)
            self.channels = tuple(int(info["num_chs"]) for info in own)
        # The head goes; every block of every stage stays, attention included (dropping it cost Apple's FastViT
        # 15 mIoU on ADE20K, apple/ml-fastvit pull 4).
        self.trunk.prune_intermediate_layers(self.num_maps, prune_norm=True, prune_head=True)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """float [B,3,H,W], normalized -> maps float [B,channels[i],H/strides[i],W/strides[i]].

        H and W are multiples of the last stride. A ViT's position embeddings are resampled to the image (bicubic,
        antialiased).
        """
        maps = self.trunk.forward_intermediates(
            image, indices=self.num_maps, output_fmt="NCHW", intermediates_only=True
        )
        return self.pyramid(maps)

    def fix_input_size(self, height: int, width: int) -> None:
        """From now on a ViT takes images of this size only, its position embeddings resampled once and for all.

        For export, in place: an antialiased bicubic inside the graph is slow where a runtime has it, and most have
        none. Other encoders have no position embeddings of the image and stay as they are.

        Args:
            height, width: pixels, multiples of the last stride.
        """
        self.family.fix_input_size(self.trunk, height, width)

    def stages(self) -> list[list[Part]]:
        """Stem and one stage for each map, in the order of computation, see the encoder's family.

        A ViT's pyramid, which no pretraining knows, is in none.
        """
        return self.family.stages(self.trunk, self.pyramid)
