"""The image encoders: from an RGB image to a feature pyramid."""

from typing import Any

import torch
from torch import nn

from mobileclip_dense.config.encoders import encoder_spec
from mobileclip_dense.models.families.family import Part, load_family


class Encoder(nn.Module):
    """A timm model and the module that makes a feature pyramid of its maps.

    Attributes:
        trunk: the timm model with its own keys, without head, final norm and final convolution.
        pyramid: `SimpleFeaturePyramid` (ViT), `OutputNorms` (Swin) or the identity (MCi).
        strides, channels: strides and channels of the maps, see `EncoderSpec`. For a ViT without pyramid, those of its
            last map.
        normalization: normalization that the trunk expects, for pixels in 0..1.
    """

    def __init__(self, name: str, drop_path_rate: float = 0.0, pyramid: bool = True):
        """Build an encoder with random weights.

        Args:
            name: a registered encoder.
            drop_path_rate: stochastic depth rate.
            pyramid: False: a ViT returns only its last map, without new layers. No effect on other encoders.

        Raises:
            ValueError: the name is unknown.
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
        # Removes the head only. All blocks of all stages are needed, attention included: without it, Apple's FastViT
        # lost 15 mIoU on ADE20K (apple/ml-fastvit pull 4).
        self.trunk.prune_intermediate_layers(self.num_maps, prune_norm=True, prune_head=True)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Compute the feature pyramid.

        Position embeddings of a ViT are resampled to the size of the image (bicubic, antialiased).

        Args:
            image: float [B,3,H,W], normalized; H and W are multiples of the last stride.

        Returns:
            Maps float [B,channels[i],H/strides[i],W/strides[i]].
        """
        maps = self.trunk.forward_intermediates(
            image, indices=self.num_maps, output_fmt="NCHW", intermediates_only=True
        )
        return self.pyramid(maps)

    def fix_input_size(self, height: int, width: int) -> None:
        """Fix a ViT to one input size, in place, by resampling its position embeddings once.

        This is for export: most runtimes have no antialiased bicubic resize, and in the others it is slow. Encoders
        without absolute position embeddings are not changed.

        Args:
            height, width: pixels, multiples of the last stride.
        """
        self.family.fix_input_size(self.trunk, height, width)

    def stages(self) -> list[list[Part]]:
        """The stem and one stage per map, in the order of computation (see the encoder's family).

        A ViT's pyramid is not included, as its weights are not pretrained.
        """
        return self.family.stages(self.trunk, self.pyramid)
