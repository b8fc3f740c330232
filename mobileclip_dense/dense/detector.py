"""Detection and instance segmentation: torchvision's Mask R-CNN (He 2017) on our encoders, as an mmengine model."""

from typing import Any, Literal

import torch
from mmengine.model import BaseModel
from mmseg.registry import MODELS
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNN, MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.transforms.v2.functional import resize

from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.dense.backbone import backbone_config

_ANCHOR_PX, _ROI_PX, _FULL_SIZE_PX = 32, 224, 512  # as published, for images from the last on
_LONGEST = 1333 / 800  # long side in evaluation, relative to the short one: the bound of the published recipes


def detector_config(config: FinetuneConfig, num_classes: int) -> dict[str, Any]:
    """The detector of a config as mmengine's registry builds it."""
    return dict(
        type="InstanceDetector",
        backbone=backbone_config(config),
        num_classes=num_classes,
        neck_channels=config.neck_channels,
        head_channels=config.head_channels,
        short_px=min(config.crop_size_px),
    )


@MODELS.register_module()
class InstanceDetector(BaseModel):
    """Encoder, feature pyramid network, region proposals, and heads for boxes and for masks.

    Anchors have 32 pixels at the first stride, twice as many at each further one, 512 at stride 64, as published for
    images of 800 pixels and more. Of images below 512 they are a sixteenth of the short side up to all of it, and
    regions choose their level of the pyramid in the same proportion, as objects shrink with their images; and in the
    same proportion fewer regions are looked at.

    Args:
        backbone: config of `PyramidEncoder`. num_classes: without the background, which is class 0.
        neck_channels: of the feature pyramid network. head_channels: of the mask head; the box head has four times as
            many (256 and 1024 as published).
        short_px: the short side of images in evaluation.
    """

    def __init__(self, backbone: dict[str, Any], num_classes: int, neck_channels: int, head_channels: int,
                 short_px: int):  # fmt: skip
        super().__init__()
        self.backbone = MODELS.build(backbone)
        encoder = self.backbone.encoder
        self._levels = [str(index) for index in range(len(encoder.strides))]  # one more, for proposals only, follows
        self.neck = FeaturePyramidNetwork(list(encoder.channels), neck_channels, extra_blocks=LastLevelMaxPool())
        self.neck.out_channels = neck_channels  # MaskRCNN asks
        proportion = min(1.0, short_px / _FULL_SIZE_PX)
        anchor_px = [(proportion * _ANCHOR_PX * 2**level,) for level in range(len(self._levels) + 1)]
        parts = MaskRCNN(
            self.neck,
            rpn_anchor_generator=AnchorGenerator(tuple(anchor_px), ((0.5, 1.0, 2.0),) * len(anchor_px)),
            box_roi_pool=_roi_pool(self._levels, 7, proportion),
            box_head=TwoMLPHead(neck_channels * 7 * 7, 4 * head_channels),
            box_predictor=FastRCNNPredictor(4 * head_channels, num_classes + 1),
            mask_roi_pool=_roi_pool(self._levels, 14, proportion),
            mask_head=MaskRCNNHeads(neck_channels, (head_channels,) * 4, dilation=1),
            mask_predictor=MaskRCNNPredictor(head_channels, head_channels, num_classes + 1),
            rpn_pre_nms_top_n_train=round(2000 * proportion),
            rpn_post_nms_top_n_train=round(2000 * proportion),
            rpn_pre_nms_top_n_test=round(1000 * proportion),
            rpn_post_nms_top_n_test=round(1000 * proportion),
            box_batch_size_per_image=round(512 * proportion),
        )
        self.rpn, self.roi_heads = parts.rpn, parts.roi_heads
        self.transform = SizeInEvaluation(
            short_px, round(_LONGEST * short_px), list(encoder.normalization.mean), list(encoder.normalization.std),
            size_divisible=encoder.strides[-1],
        )  # fmt: skip

    def forward(
        self,
        inputs: list[torch.Tensor],
        data_samples: list[dict[str, Any]] | None = None,
        mode: Literal["loss", "predict", "tensor"] = "tensor",
    ) -> Any:
        """What mmengine asks for.

        Args:
            inputs: images, float [3,H,W] RGB in 0..1; the encoder's normalization is done here.
            data_samples: of each image boxes float [N,4] (corners x, y, x, y in pixels), labels int64 [N] (1..) and
                masks uint8 [N,H,W]; for predict image_id alone, or nothing.

        Returns:
            loss: the five losses of Mask R-CNN, each []; images go through at the size they have.
            predict: a dict per image, at the image's own size: boxes [M,4], labels [M], scores [M] (0..1, falling),
                masks bool [M,H,W], image_id where it was given.
            tensor: the maps of the pyramid and one at twice the last stride, float [B,neck_channels,h,w], by name.
        """
        images, targets = self.transform(inputs, data_samples if mode == "loss" else None)
        pyramid = self.neck(dict(zip(self._levels, self.backbone(images.tensors), strict=True)))
        # Anchors and regions take the maps' type, and bfloat16 does not tell neighbouring pixels apart beyond 256.
        features = {name: feature.float() for name, feature in pyramid.items()}
        if mode == "tensor":
            return features
        proposals, proposal_losses = self.rpn(images, features, targets)
        detections, losses = self.roi_heads(features, proposals, images.image_sizes, targets)
        if mode == "loss":
            return {**proposal_losses, **losses}
        sizes = [tuple(image.shape[-2:]) for image in inputs]
        return [
            {**found, "masks": found["masks"][:, 0] > 0.5, **({"image_id": sample["image_id"]} if sample else {})}
            for found, sample in zip(
                self.transform.postprocess(detections, images.image_sizes, sizes),
                data_samples or [{} for _ in inputs],
                strict=True,
            )
        ]


class SizeInEvaluation(GeneralizedRCNNTransform):
    """torchvision's normalization and padding; resizes in evaluation only, antialiased as in training."""

    def resize(
        self, image: torch.Tensor, target: dict[str, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor] | None]:
        """float [3,H,W]: the short side to `min_size`, unless the long one would be above `max_size`."""
        if self.training:
            return image, target
        short, long = sorted(image.shape[-2:])
        new_short, new_long = self.min_size[0], int(self.min_size[0] * long / short)
        if new_long > self.max_size:  # as torchvision rounds, but of 1x1000 pixels it would leave no row
            new_short, new_long = max(1, int(self.max_size * new_short / new_long)), self.max_size
        size = [new_short, new_long] if image.shape[-2] == short else [new_long, new_short]
        return resize(image, size, antialias=True), target


def _roi_pool(levels: list[str], size: int, proportion: float) -> MultiScaleRoIAlign:
    return MultiScaleRoIAlign(levels, size, sampling_ratio=2, canonical_scale=round(proportion * _ROI_PX))
