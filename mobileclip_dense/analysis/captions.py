"""`mobileclip-dense analyze captions`: statistics of the captions of data sets (arXiv 2405.08911, figure 1)."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from mobileclip_dense.analysis.caption_page import Picture, captions_page
from mobileclip_dense.analysis.caption_statistics import CaptionSet, describe_sets
from mobileclip_dense.artifact.files import figures_beside, staged_file, write_json
from mobileclip_dense.config import CaptionsConfig
from mobileclip_dense.data.captioned.resize import Pixels
from mobileclip_dense.data.captioned.samples import BadSample, read_captions, read_image, read_synthetic
from mobileclip_dense.data.captioned.shards import list_shards, read_samples
from mobileclip_dense.models.clip import build_transform
from mobileclip_dense.pages.progress import progress_bar
from mobileclip_dense.pretraining.teachers import load_clip

_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The captions of a usable sample, and its shard and key."""

    shard: str
    key: str
    original: list[str]
    synthetic: list[str]


@dataclass(frozen=True, kw_only=True)
class Source:
    """The usable samples of a source.

    Attributes:
        source: the source as given.
        name: its name on the page.
        pairs: usable samples.
        bad: numbers of unusable samples by kind of problem.
        similarities: cosine similarities of image and captions of each pair, original captions first. Empty without a
            model.
    """

    source: str
    name: str
    pairs: list[Pair] = field(default_factory=list)
    bad: Counter[str] = field(default_factory=Counter)
    similarities: list[list[float]] = field(default_factory=list)

    def sets(self) -> list[CaptionSet]:
        """The set of original captions and, if there are any, the set of synthetic captions."""
        scored = self.similarities or [[] for _ in self.pairs]
        cuts = [len(pair.original) for pair in self.pairs]
        original = CaptionSet(
            name=self.name,
            captions=[pair.original for pair in self.pairs],
            similarities=[s[:n] for s, n in zip(scored, cuts, strict=True)] if self.similarities else None,
        )
        if not any(pair.synthetic for pair in self.pairs):
            return [original]
        synthetic = CaptionSet(
            name=f"{self.name} (synthetic)",
            captions=[pair.synthetic for pair in self.pairs],
            similarities=[s[n:] for s, n in zip(scored, cuts, strict=True)] if self.similarities else None,
        )
        return [original, synthetic]


class Scorer:
    """The similarity of images and captions by a CLIP model, with the preprocessing stored in the model."""

    def __init__(self, name: str) -> None:
        """Raises ValueError, with a message that begins with --clip, or OSError: see `load_clip`."""
        try:
            model, self._tokenizer, normalization = load_clip(name)
        except ValueError as error:
            raise ValueError(f"--clip: {error}") from None
        size = model.visual.image_size
        self._transform = build_transform(model, normalization, size if isinstance(size, int) else int(size[0]))
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = model.eval().to(self._device)

    @torch.inference_mode()
    def __call__(self, images: list[Pixels], captions: list[list[str]]) -> list[list[float]]:
        """Images uint8 [H,W,3] and the captions of each image -> cosine similarities, in the same order."""
        pixels = torch.stack([self._transform(image) for image in images]).to(self._device)
        tokens = self._tokenizer([caption for of_image in captions for caption in of_image]).to(self._device)
        image_features = functional.normalize(self._model.encode_image(pixels).float(), dim=-1)
        text_features = functional.normalize(self._model.encode_text(tokens).float(), dim=-1)
        counts = [len(of_image) for of_image in captions]
        rows = image_features.repeat_interleave(torch.tensor(counts, device=self._device), dim=0)
        cosines: list[float] = (rows * text_features).sum(dim=-1).tolist()
        ends = np.cumsum(counts).tolist()
        return [cosines[end - count : end] for end, count in zip(ends, counts, strict=True)]


def analyze_captions(config: CaptionsConfig) -> None:
    """Write the page and, beside it, its figures as JSON.

    Raises:
        FileNotFoundError: a source has no shards.
        ValueError: a source has no usable sample, or the model cannot be loaded, or --out is a .json file.
        FileExistsError: the page or its JSON exists and --force was not given.
    """
    figures = figures_beside(config.out, config.force)
    shards = {name: list_shards(name, "train") for name in config.shards}
    scorer = None if config.clip is None else Scorer(config.clip)
    names = short_names(list(shards))
    sources = [
        read_source(Source(source=source, name=name), paths, config.max_samples, scorer, config.num_pictures > 0)
        for name, (source, paths) in zip(names, shards.items(), strict=True)
    ]
    described = describe_sets([one for source in sources for one in source.sets()])
    pictures = {source.name: pick_pictures(source, config.num_pictures) for source in sources}
    page = captions_page(described, pictures, {source.name: dict(source.bad) for source in sources}, config.clip)
    with staged_file(config.out) as staging:
        staging.write_text(page, encoding="utf-8", errors="backslashreplace")
    bad = {source.source: dict(source.bad) for source in sources}
    read = {source.name: source.source for source in sources}
    write_json(figures, {"clip": config.clip, "sources": read, "bad_samples": bad, "sets": described})
    for one in described:
        print(_summary(one))
    print(f"{config.out}: {config.out.stat().st_size / 1e6:.1f} MB, open it in a browser")


def short_names(sources: list[str]) -> list[str]:
    """The sources without their common leading and trailing folders. A single source is unchanged."""
    parts = [source.rstrip("/").split("/") for source in sources]
    while len(parts) > 1 and all(len(p) > 1 and p[0] == parts[0][0] for p in parts):
        parts = [p[1:] for p in parts]
    while len(parts) > 1 and all(len(p) > 1 and p[-1] == parts[0][-1] for p in parts):
        parts = [p[:-1] for p in parts]
    return ["/".join(p) for p in parts]


def read_source(source: Source, shards: list[str], max_samples: int, scorer: Scorer | None, decode: bool) -> Source:
    """Fill a source with the first usable samples of its shards. Images are decoded with a scorer or with `decode`.

    Raises:
        ValueError: there is no usable sample.
    """
    waiting: list[tuple[Pixels, list[str]]] = []
    usable = islice(_usable_pairs(shards, source.bad, decode or scorer is not None), max_samples)
    for pair, image in progress_bar(usable, source.name[-30:], unit="sample", total=max_samples, leave=False):
        source.pairs.append(pair)
        if scorer is not None:
            assert image is not None
            waiting.append((image, pair.original + pair.synthetic))
            if len(waiting) == _BATCH:
                _score(scorer, waiting, source)
    if scorer is not None and waiting:
        _score(scorer, waiting, source)
    if not source.pairs:
        found = ", ".join(f"{count} {kind}" for kind, count in source.bad.items()) or "no sample"
        raise ValueError(
            f"{source.source}: captions: found no usable sample in {len(shards)} shards (bad: {found}); "
            "expected an image and a txt, or a json with a caption"
        )
    return source


def _score(scorer: Scorer, waiting: list[tuple[Pixels, list[str]]], source: Source) -> None:
    images, captions = zip(*waiting, strict=True)
    source.similarities.extend(scorer(list(images), list(captions)))
    waiting.clear()


def _usable_pairs(shards: list[str], bad: Counter[str], decode: bool) -> Iterator[tuple[Pair, Pixels | None]]:
    """Yield samples with captions and, with `decode`, an image. Counts unusable samples in `bad` by kind of problem."""
    for shard in shards:
        for sample in read_samples(shard):
            try:
                if sample.fault is not None:
                    raise BadSample("shard", sample.fault)
                original = read_captions(sample.members)
                synthetic = read_synthetic(sample.members)
                image = read_image(sample.members) if decode else None
            except BadSample as error:
                bad[error.kind] += 1
                continue
            yield Pair(shard=shard, key=sample.key, original=original, synthetic=synthetic), image


def pick_pictures(source: Source, number: int) -> list[Picture]:
    """Samples evenly spaced by rank of image-caption similarity, least similar first; without a model, by position.

    Their images are read again, because the images of all samples would not fit into memory.
    """
    count = len(source.pairs)
    means = [float(np.mean(s[: len(p.original)])) for s, p in zip(source.similarities, source.pairs, strict=False)]
    order = np.argsort(means, kind="stable") if means else np.arange(count)
    ranks = np.unique(np.linspace(0, count - 1, min(number, count)).round().astype(int)) if number else np.arange(0)
    wanted = {(source.pairs[order[rank]].shard, source.pairs[order[rank]].key): int(rank) for rank in ranks}
    found: dict[int, Picture] = {}
    for shard in dict.fromkeys(shard for shard, _ in wanted):
        left = {key for of_shard, key in wanted if of_shard == shard}
        for sample in read_samples(shard):
            if sample.key in left:
                left.remove(sample.key)
                rank = wanted[shard, sample.key]
                index = int(order[rank])
                pair = source.pairs[index]
                found[rank] = Picture(
                    image=read_image(sample.members),
                    percentile=100 * rank / max(1, count - 1) if means else None,
                    captions=pair.original + pair.synthetic,
                    num_original=len(pair.original),
                    similarities=source.similarities[index] if means else None,
                )
            if not left:
                break
    return [found[rank] for rank in sorted(found)]


def _summary(figures: dict[str, Any]) -> str:
    similarity, ratio = figures["similarity"], figures["vocabulary"]["type_token_ratio"]
    return (
        f"{figures['name']}: {figures['num_captions']} captions, {figures['words']['mean']:.1f} words, "
        f"{figures['vocabulary']['num_distinct']} distinct"
        + (f" (type-token ratio {ratio:.3f} at {figures['vocabulary']['sample_size']} words)" if ratio else "")
        + f", {figures['rules']['names nothing']['share']:.0%} name nothing"
        + (f", similarity {similarity['mean']:.3f}" if similarity else "")
    )
