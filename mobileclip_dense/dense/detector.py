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

_ANCHOR_PX, _ROI_PX = 32, 224  # published sizes, used for images with a short side of at least _FULL_SIZE_PX
_FULL_SIZE_PX = 512
_LONGEST = 1333 / 800  # largest long side in evaluation, relative to the short side, as in the published recipes


def detector_config(config: FinetuneConfig, num_classes: int) -> dict[str, Any]:
    """The detector as a config for mmengine's registry."""
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
    """Encoder, feature pyramid network, region proposal network, box head and mask head.

    Anchors are 32 pixels wide at the first stride and double at each further stride, to 512 pixels at stride 64. These
    are the published sizes for images of 800 pixels and more. For images with a short side below 512 pixels, anchor
    sizes, the scale that assigns regions to pyramid levels, and the number of regions shrink in proportion to the short
    side, because the objects shrink with the image.

    Args:
        backbone: config of `PyramidEncoder`.
        num_classes: number of classes without the background, which is class 0.
        neck_channels: channels of the feature pyramid network.
        head_channels: channels of the mask head. The box head has four times as many (published: 256 and 1024).
        short_px: short side of the images in evaluation, pixels.
    """

    def __init__(self, backbone: dict[str, Any], num_classes: int, neck_channels: int, head_channels: int,
                 short_px: int):  # fmt: skip
        super().__init__()
        self.backbone = MODELS.build(backbone)
        encoder = self.backbone.encoder
        self._levels = [str(index) for index in range(len(encoder.strides))]  # the neck adds one, only for proposals
        self.neck = FeaturePyramidNetwork(list(encoder.channels), neck_channels, extra_blocks=LastLevelMaxPool())
        self.neck.out_channels = neck_channels  # MaskRCNN reads this attribute
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
        """mmengine's forward pass: losses, predictions or feature maps.

        Args:
            inputs: images, float [3,H,W] RGB in 0..1. They are normalized here, by the encoder's mean and std.
            data_samples: for each image boxes float [N,4] (corners x, y, x, y in pixels), labels int64 [N] (1..) and
                masks uint8 [N,H,W]. In mode predict: image_id, or None.
            mode: loss, predict or tensor.

        Returns:
            loss: the five losses of Mask R-CNN, each []. Images are not resized.
            predict: a dict per image, at the image's own size: boxes [M,4], labels [M], scores [M] (0..1, descending),
                masks bool [M,H,W], and image_id if it was given.
            tensor: the maps of the pyramid and one at twice the last stride, float [B,neck_channels,h,w], by name.
        """
        images, targets = self.transform(inputs, data_samples if mode == "loss" else None)
        pyramid = self.neck(dict(zip(self._levels, self.backbone(images.tensors), strict=True)))
        # Anchors and regions take the dtype of the maps, and bfloat16 cannot represent every pixel position above 256.
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
    """torchvision's normalization and padding. It resizes only in evaluation, antialiased as in training."""

    def resize(
        self, image: torch.Tensor, target: dict[str, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor] | None]:
        """Resize float [3,H,W] so that the short side is `min_size`, or the long side `max_size` if that is smaller."""
        if self.training:
            return image, target
        short, long = sorted(image.shape[-2:])
        new_short, new_long = self.min_size[0], int(self.min_size[0] * long / short)
        if new_long > self.max_size:  # rounded as in torchvision, which would give 0 rows for 1x1000 pixels
            new_short, new_long = max(1, int(self.max_size * new_short / new_long)), self.max_size
        size = [new_short, new_long] if image.shape[-2] == short else [new_long, new_short]
        return resize(image, size, antialias=True), target


def _roi_pool(levels: list[str], size: int, proportion: float) -> MultiScaleRoIAlign:
    return MultiScaleRoIAlign(levels, size, sampling_ratio=2, canonical_scale=round(proportion * _ROI_PX))
