"""Zero-shot retrieval on held-out pairs: does a caption find its image, and an image its caption?"""

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
    """Share of rows [N,N] whose own column is among the k largest, in percent.

    Columns that tie with it share the places that are left: a model that tells nothing apart gets k/N.
    """
    own = similarity.diag()[:, None]
    larger, equal = (similarity > own).sum(dim=1), (similarity == own).sum(dim=1)  # equal counts the own one too
    return float(((k - larger) / equal).clamp(0, 1).mean() * 100)


@torch.inference_mode()
def measure_retrieval(
    model: CLIP | CustomTextCLIP, tokenizer: Tokenizer, normalization: Normalization, shards: list[str], *,
    image_size_px: int, device: torch.device, batch_size: int = 256,
) -> dict[str, float]:  # fmt: skip
    """Recall@1 and @5 both ways over all pairs of `shards`, in percent, with each image's first caption.

    Samples that cannot be used are left out and counted in `num_skipped_pairs`, and `num_pairs` is without them: they
    must not end a run that has trained for days.

    Raises:
        ValueError: there is no pair.
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
    """Read held-out shards as far as their first usable pair.

    Raises:
        ValueError: there is none.
    """
    skipped = Counter[str]()
    if next(_usable_pairs(shards, skipped), None) is None:
        raise ValueError(_no_pair(shards, skipped))


def _no_pair(shards: list[str], skipped: Counter[str]) -> str:
    found = ", ".join(f"{number} {kind}" for kind, number in skipped.most_common())
    return (f"{shards[0]}: held-out pairs: found no usable sample in {len(shards)} shards (bad: {found}); repair them, "
            f"or give others with --val-data")  # fmt: skip


def _usable_pairs(shards: list[str], skipped: Counter[str]) -> Iterator[tuple[Pixels, list[str]]]:
    """The others are counted in `skipped` by kind."""
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
