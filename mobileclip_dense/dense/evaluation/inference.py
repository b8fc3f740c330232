"""Inference with test-time augmentation: sliding windows, several sizes and mirroring, averaged."""

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
    """Class indices int64 [H,W] of an image.

    With more than one view the class probabilities are averaged: softmax over the scores at the image's own size, as
    mmsegmentation's test-time augmentation does. Whatever the number of views, one map of C x H x W sums and one of a
    view's scores are held, and no more.

    Args:
        views: the image at each of its sizes, uint8 [3,h,w], BGR. size_px: of the result.
        window_px: of a sliding window; None: each view at once. flip: also see each view mirrored.

    Raises:
        ValueError: a score is not finite.
    """
    if len(views) == 1 and not flip:
        return _resizing(model, size_px)(_scores(model, views[0], window_px)).argmax(0)
    sums = torch.zeros((model.out_channels, *size_px), device=next(model.parameters()).device)
    for image, mirrored in _mirrored_views(views, flip):
        # The scores get no name: one would keep them while those of the next view are computed.
        add_probabilities(sums, _scores(model, image, window_px), _resizing(model, size_px, mirrored))
    return sums.argmax(0)


@torch.inference_mode()
def predict_depth(
    model: EncoderDecoder, views: Sequence[torch.Tensor], size_px: Size, *, window_px: Size | None, flip: bool
) -> torch.Tensor:
    """Metres float32 [H,W] of an image: the mean over its views.

    A larger picture of a scene looks like a nearer scene: of depth, published figures average mirrored views alone.
    Arguments and errors as of `predict_classes`.
    """
    maps = [
        _resizing(model, size_px, mirrored)(_scores(model, image, window_px))[0]
        for image, mirrored in _mirrored_views(views, flip)
    ]
    return torch.stack(maps).mean(0)


def add_probabilities(sums: torch.Tensor, scores: torch.Tensor, resize: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Add softmax(resize(scores)) to `sums`, in place, holding the resized scores of a few classes at a time.

    Args:
        sums: float [C,H,W]. scores: float [C,h,w]. resize: float [c,h,w] -> [c,H,W], each class by itself.
    """
    parts = torch.split(scores, _CLASSES_AT_ONCE)
    log_total = reduce(torch.logaddexp, (resize(part).logsumexp(0) for part in parts))
    for sum_part, part in zip(torch.split(sums, _CLASSES_AT_ONCE), parts, strict=True):
        sum_part += (resize(part) - log_total).exp_()


def _mirrored_views(views: Sequence[torch.Tensor], flip: bool) -> Iterator[tuple[torch.Tensor, bool]]:
    """Each view, and whether it is mirrored."""
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
        raise ValueError("prediction: found values that are not finite; the run's weights are of no use")
    return scores[:, :height, :width]  # without the padding to a multiple of 32


def _resizing(model: EncoderDecoder, size_px: Size, mirrored: bool = False) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function that turns scores [c,h,w] back where they are mirrored, and resizes them as mmsegmentation does."""

    def resize(scores: torch.Tensor) -> torch.Tensor:
        upright = scores.flip(-1) if mirrored else scores
        return functional.interpolate(upright[None], size=size_px, mode="bilinear", align_corners=model.align_corners)[
            0
        ]

    return resize


def slide(model: EncoderDecoder, image: torch.Tensor, window_px: Size | None) -> torch.Tensor:
    """Mean of the head's scores over overlapping windows, float [C,H,W].

    The windows and their stride, two thirds of their size, are those of mmsegmentation's ConvNeXt. Its own
    `slide_inference` pads every window's scores to the whole image, and its DepthEstimator does not slide at all.

    Args:
        image: normalized float [1,3,H,W]. window_px: where a side is longer than the image's, the image's; None: the
            whole image.
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
    """Starts of the windows; the last window ends at the border."""
    last = max(length - window, 0)
    return [*range(0, last, window * 2 // 3), last]
