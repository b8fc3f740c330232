"""Inference with test-time augmentation: the mean over sliding windows, several scales and mirrored images."""

from collections.abc import Callable, Iterator, Sequence
from functools import reduce

import torch
from mmseg.models.segmentors import EncoderDecoder
from mmseg.structures import SegDataSample
from torch.nn import functional

Size = tuple[int, int]  # height and width, pixels

_CLASSES_AT_ONCE = 16


@torch.inference_mode()
def predict_classes(
    model: EncoderDecoder, views: Sequence[torch.Tensor], size_px: Size, *, window_px: Size | None, flip: bool
) -> torch.Tensor:
    """Predict the class indices of an image, int64 [H,W].

    With more than one view, the class probabilities are averaged: softmax over the scores at the image's own size, as
    in mmsegmentation's test-time augmentation. Memory does not grow with the number of views: there is one map of sums
    [C,H,W], and the scores of one view.

    Args:
        views: the image at each scale, uint8 [3,h,w], BGR.
        size_px: H and W of the result.
        window_px: height and width of the sliding window. None: no sliding window.
        flip: also predict on each view mirrored.

    Raises:
        ValueError: a score is not finite.
    """
    if len(views) == 1 and not flip:
        return _resizing(model, size_px)(_scores(model, views[0], window_px)).argmax(0)
    sums = torch.zeros((model.out_channels, *size_px), device=next(model.parameters()).device)
    for image, mirrored in _mirrored_views(views, flip):
        # A variable would keep these scores alive while those of the next view are computed.
        add_probabilities(sums, _scores(model, image, window_px), _resizing(model, size_px, mirrored))
    return sums.argmax(0)


@torch.inference_mode()
def predict_depth(
    model: EncoderDecoder, views: Sequence[torch.Tensor], size_px: Size, *, window_px: Size | None, flip: bool
) -> torch.Tensor:
    """Predict the depth of an image in metres, float32 [H,W]: the mean over its views.

    An enlarged picture of a scene looks like a nearer scene, so published depth figures average only mirrored views.
    Arguments and errors as in `predict_classes`.
    """
    maps = [
        _resizing(model, size_px, mirrored)(_scores(model, image, window_px))[0]
        for image, mirrored in _mirrored_views(views, flip)
    ]
    return torch.stack(maps).mean(0)


def add_probabilities(sums: torch.Tensor, scores: torch.Tensor, resize: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Add softmax(resize(scores)) to `sums` in place, resizing a few classes at a time to save memory.

    Args:
        sums: float [C,H,W].
        scores: float [C,h,w].
        resize: float [c,h,w] -> [c,H,W], each class independently.
    """
    parts = torch.split(scores, _CLASSES_AT_ONCE)
    log_total = reduce(torch.logaddexp, (resize(part).logsumexp(0) for part in parts))
    for sum_part, part in zip(torch.split(sums, _CLASSES_AT_ONCE), parts, strict=True):
        sum_part += (resize(part) - log_total).exp_()


def _mirrored_views(views: Sequence[torch.Tensor], flip: bool) -> Iterator[tuple[torch.Tensor, bool]]:
    """Yield each view and whether it is mirrored."""
    for view in views:
        yield view, False
        if flip:
            yield view.flip(-1), True


def _scores(model: EncoderDecoder, view: torch.Tensor, window_px: Size | None) -> torch.Tensor:
    """The head's scores float [C,h,w] for a view uint8 [3,h,w]."""
    height, width = view.shape[1:]
    batch = model.data_preprocessor({"inputs": [view], "data_samples": [SegDataSample()]})
    scores = slide(model, batch["inputs"], window_px)
    if not scores.sum().isfinite():
        raise ValueError("prediction: found values that are not finite, expected finite scores; retrain the run")
    return scores[:, :height, :width]  # without the padding to a multiple of 32


def _resizing(model: EncoderDecoder, size_px: Size, mirrored: bool = False) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function that undoes the mirroring of scores [c,h,w] and resizes them as mmsegmentation does."""

    def resize(scores: torch.Tensor) -> torch.Tensor:
        upright = scores.flip(-1) if mirrored else scores
        return functional.interpolate(upright[None], size=size_px, mode="bilinear", align_corners=model.align_corners)[
            0
        ]

    return resize


def slide(model: EncoderDecoder, image: torch.Tensor, window_px: Size | None) -> torch.Tensor:
    """The mean of the head's scores over overlapping windows, float [C,H,W].

    The window size and the stride of two thirds of it are those of mmsegmentation's ConvNeXt configs. mmsegmentation's
    `slide_inference` pads the scores of each window to the whole image, and its DepthEstimator has no sliding windows.

    Args:
        image: normalized float [1,3,H,W].
        window_px: height and width of a window, limited to those of the image. None: the whole image.
    """
    height, width = image.shape[2:]
    tall, wide = window_px or (height, width)
    if height <= tall and width <= wide:
        return _head_scores(model, image)
    sums = image.new_zeros((model.out_channels, height, width))
    counts = image.new_zeros((height, width))
    for top in _starts(height, tall):
        for left in _starts(width, wide):
            window = ..., slice(top, top + tall), slice(left, left + wide)
            sums[window] += _head_scores(model, image[window])
            counts[window[1:]] += 1
    return sums.div_(counts)


def _head_scores(model: EncoderDecoder, image: torch.Tensor) -> torch.Tensor:
    scores: torch.Tensor = model.encode_decode(image, [dict(img_shape=image.shape[2:])])
    return scores[0]


def _starts(length: int, window: int) -> list[int]:
    """The start positions of the windows; the last window ends at the border."""
    last = max(length - window, 0)
    return [*range(0, last, window * 2 // 3), last]
