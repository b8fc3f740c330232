"""Statistics of a set of captions."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from open_clip.tokenizer import SimpleTokenizer
from scipy.special import gammaln

from mobileclip_dense.analysis.caption_rules import RULES, broken_rules, normalized, split_words
from mobileclip_dense.analysis.parts_of_speech import PARTS, count_parts

CONTEXT_LENGTH = 77  # of CLIP's text tower (arXiv 2103.00020, 2.4), which truncates longer captions
PERCENTILES = (5, 25, 50, 75, 95)
_NUM_GROWTH_POINTS = 24
_SHOWN_LENGTHS = 100  # words or tokens; longer captions share the last bin
_NUM_EXAMPLES = 4

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class CaptionSet:
    """Captions of one kind (original or synthetic) of one source.

    Attributes:
        name: name of the set.
        captions: captions of each sample.
        similarities: cosine similarity of each caption and its image, in the same order. None without a model.
    """

    name: str
    captions: list[list[str]]
    similarities: list[list[float]] | None = None

    @property
    def flat(self) -> list[str]:
        """All captions."""
        return [caption for captions in self.captions for caption in captions]


def describe_sets(sets: list[CaptionSet]) -> list[dict[str, Any]]:
    """All figures of each set, for JSON. The functions below document them."""
    words = [[split_words(caption) for caption in one.flat] for one in sets]
    counts = [Counter(word.lower() for caption in captions for word in caption) for captions in words]
    common = min(sum(count.values()) for count in counts)
    return [
        {
            "name": one.name,
            "num_samples": sum(bool(captions) for captions in one.captions),
            "num_captions": len(one.flat),
            "words": describe_lengths([len(caption) for caption in captions]),
            "clip_tokens": describe_lengths(clip_lengths(one.flat), cut_above=CONTEXT_LENGTH),
            "vocabulary": describe_vocabulary(count, common),
            "parts_of_speech": describe_parts(captions),
            "duplicates": describe_duplicates(one.flat),
            "rules": describe_rules(one.flat),
            "similarity": describe_similarity(one),
        }
        for one, captions, count in zip(sets, words, counts, strict=True)
    ]


def clip_lengths(captions: list[str]) -> list[int]:
    """The number of CLIP tokens of each caption, with start and end token, before truncation (vocabulary: 49 408)."""
    tokenizer = SimpleTokenizer()
    return [len(tokenizer.encode(caption)) + 2 for caption in captions]


def describe_lengths(lengths: list[int], cut_above: int | None = None) -> dict[str, Any]:
    """Mean, percentiles and histogram. `histogram[n]` counts captions of length n, the last entry also longer ones."""
    values = np.array(lengths)
    histogram = np.bincount(values.clip(max=_SHOWN_LENGTHS), minlength=2)
    cut = {} if cut_above is None else {"share_cut": float((values > cut_above).mean())}
    return {
        "mean": float(values.mean()),
        "percentiles": dict(zip(map(str, PERCENTILES), np.percentile(values, PERCENTILES).tolist(), strict=True)),
        "histogram": histogram.tolist(),
        **cut,
    }


def describe_vocabulary(counts: Counter[str], sample_size: int) -> dict[str, Any]:
    """Distinct words (ignoring case), type-token ratio at `sample_size` words, growth as [words, distinct words]."""
    total = sum(counts.values())
    sizes = sorted({round(size) for size in np.geomspace(1, max(total, 1), _NUM_GROWTH_POINTS)} if total else ())
    return {
        "num_words": total,
        "num_distinct": len(counts),
        "sample_size": sample_size,
        "type_token_ratio": expected_distinct(counts, sample_size) / sample_size if sample_size else None,
        "growth": [[size, expected_distinct(counts, size)] for size in sizes],
        "most_common": counts.most_common(12),
    }


def expected_distinct(counts: Counter[str], sample_size: int) -> float:
    """The expected number of distinct words in `sample_size` words drawn without replacement.

    This is rarefaction (Hurlbert 1971): the sum over words of 1 - C(N-f, n) / C(N, n). Type-token ratios fall with the
    size of a text, so they are only comparable at the same size.
    """
    frequencies = np.fromiter(counts.values(), dtype=np.float64)
    total, size = frequencies.sum(), float(sample_size)
    left = total - frequencies - size  # the number of other words that are not drawn if this word is never drawn
    possible = left >= 0
    log_missed = (gammaln(total - frequencies[possible] + 1) - gammaln(left[possible] + 1)
                  - gammaln(total + 1) + gammaln(total - size + 1))  # fmt: skip
    return float(len(frequencies) - np.exp(log_missed).sum())


def describe_parts(captions: list[list[str]]) -> dict[str, dict[str, float]]:
    """The share of all words and the mean number per caption of each part of speech, for captions split into words."""
    counts = count_parts(captions)
    total = max(1, sum(counts.values()))
    return {
        "share": {part: counts[part] / total for part in PARTS},
        "per_caption": {part: counts[part] / len(captions) for part in PARTS},
    }


def describe_duplicates(captions: list[str]) -> dict[str, Any]:
    """The shares of captions equal to an earlier one, exactly or after `normalized`; and the most frequent captions."""
    exact, near = Counter(captions), Counter(map(normalized, captions))
    return {
        "exact": 1 - len(exact) / len(captions),
        "near": 1 - len(near) / len(captions),
        "most_common": [[caption, count] for caption, count in exact.most_common(_NUM_EXAMPLES) if count > 1],
    }


def describe_rules(captions: list[str]) -> dict[str, dict[str, Any]]:
    """The share of captions that break each rule, with the first distinct examples; `any`: at least one rule."""
    judged = {caption: broken_rules(caption) for caption in dict.fromkeys(captions)}
    found = {
        rule: {
            "share": sum(rule in judged[caption] for caption in captions) / len(captions),
            "examples": [caption for caption, broken in judged.items() if rule in broken][:_NUM_EXAMPLES],
        }
        for rule in RULES
    }
    return {**found, "any": {"share": sum(bool(judged[caption]) for caption in captions) / len(captions)}}


def describe_similarity(captions: CaptionSet) -> dict[str, Any] | None:
    """Mean, standard deviation, percentiles and histogram of the cosine similarity of image and caption."""
    if captions.similarities is None:
        return None
    values = np.array([value for of_sample in captions.similarities for value in of_sample])
    counts, edges = np.histogram(values, bins=30)
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "percentiles": dict(zip(map(str, PERCENTILES), np.percentile(values, PERCENTILES).tolist(), strict=True)),
        "histogram": {"counts": counts.tolist(), "edges": edges.tolist()},
    }
