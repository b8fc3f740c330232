"""Zero-shot retrieval on held-out pairs: recall from image to caption and from caption to image."""

from collections import Counter
from collections.abc import Iterator
from itertools import islice

import torch
from open_clip.model import CLIP, CustomTextCLIP

from mobileclip_dense.artifact.preprocess import Normalization
from mobileclip_dense.data.captioned.resize import Pixels
from mobileclip_dense.data.captioned.samples import BadSample, read_sample
from mobileclip_dense.data.captioned.shards import read_samples
from mobileclip_dense.models.clip import Tokenizer, build_transform


def recall_at(similarity: torch.Tensor, k: int) -> float:
    """The share of rows of `similarity` [N,N] with the diagonal entry among the k largest, in percent.

    Ties share the remaining places, so that a model with constant similarities gets k/N.
    """
    own = similarity.diag()[:, None]
    larger, equal = (similarity > own).sum(dim=1), (similarity == own).sum(dim=1)  # `equal` includes the diagonal
    return float(((k - larger) / equal).clamp(0, 1).mean() * 100)


@torch.inference_mode()
def measure_retrieval(
    model: CLIP | CustomTextCLIP, tokenizer: Tokenizer, normalization: Normalization, shards: list[str], *,
    image_size_px: int, device: torch.device, batch_size: int = 256,
) -> dict[str, float]:  # fmt: skip
    """Recall@1 and recall@5 in both directions over all pairs of `shards`, in percent, with the first caption of each.

    Unusable samples are left out and counted in `num_skipped_pairs`, not in `num_pairs`; they must not end a long run.

    Raises:
        ValueError: there is no usable pair.
    """
    model.eval()
    transform = build_transform(model, normalization, image_size_px)
    image_features, text_features = [], []
    skipped = Counter[str]()
    pairs = _usable_pairs(shards, skipped)
    while batch := list(islice(pairs, batch_size)):
        images = torch.stack([transform(image) for image, _ in batch]).to(device)
        texts = tokenizer([captions[0] for _, captions in batch]).to(device)
        image_features.append(model.encode_image(images, normalize=True))
        text_features.append(model.encode_text(texts, normalize=True))
    if not image_features:
        raise ValueError(_no_pair(shards, skipped))
    similarity = torch.cat(image_features).float() @ torch.cat(text_features).float().T
    return {
        "num_pairs": len(similarity),
        "num_skipped_pairs": skipped.total(),
        "image_to_text_recall_at_1": recall_at(similarity, 1),
        "image_to_text_recall_at_5": recall_at(similarity, 5),
        "text_to_image_recall_at_1": recall_at(similarity.T, 1),
        "text_to_image_recall_at_5": recall_at(similarity.T, 5),
    }


def verify_pairs(shards: list[str]) -> None:
    """Read held-out shards up to the first usable pair.

    Raises:
        ValueError: there is no usable pair.
    """
    skipped = Counter[str]()
    if next(_usable_pairs(shards, skipped), None) is None:
        raise ValueError(_no_pair(shards, skipped))


def _no_pair(shards: list[str], skipped: Counter[str]) -> str:
    found = ", ".join(f"{number} {kind}" for kind, number in skipped.most_common())
    return (f"{shards[0]}: held-out pairs: found no usable sample in {len(shards)} shards (bad: {found}); repair them, "
            f"or set --val-data to others")  # fmt: skip


def _usable_pairs(shards: list[str], skipped: Counter[str]) -> Iterator[tuple[Pixels, list[str]]]:
    """Yield the usable pairs, and count the others in `skipped` by kind of problem."""
    for shard in shards:
        for sample in read_samples(shard):
            try:
                if sample.fault is not None:
                    raise BadSample("shard", sample.fault)
                pair = read_sample(sample.members)
            except BadSample as error:
                skipped[error.kind] += 1
                continue
            yield pair
