"""Synthetic captions: those a shard already has, those of a file, or those that an open_clip CoCa model writes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mobileclip_dense.artifact.files import sha256_of
from mobileclip_dense.artifact.text import read_lines
from mobileclip_dense.data.captioned.caption_text import has_words, verify_characters
from mobileclip_dense.models.clip import normalize_pixels
from mobileclip_dense.pretraining.teachers import hash_weights, load_clip

Draws = np.random.Generator

FROM_SHARD = "shard"  # of --captions
_MAX_TOKENS = 30  # per caption, as open_clip's own generation
_MIN_TOKENS = 5
_TOP_P = 0.9  # nucleus: captions of one image should differ, yet stay likely


class ShardCaptions:
    """The captions that a sample's syn.json has already."""

    image_size_px: int | None = None

    def describe(self) -> dict[str, Any]:
        """For the sidecar."""
        return {"source": "shard"}

    def write(
        self, keys: list[str], present: list[list[str]], images: torch.Tensor | None, draws: list[Draws]
    ) -> list[list[str]]:
        """See `CocaCaptioner.write`; the captions are those present."""
        return present


class FileCaptions:
    """Captions from a file, by sample key.

    A .jsonl has a line {"key": KEY, "syn_text": [caption, ...]} per sample; any other file has lines KEY<tab>caption,
    as many per key as it has captions. UTF-8, with or without a byte order mark.
    """

    image_size_px: int | None = None

    def __init__(self, path: Path):
        """Read the whole file.

        Raises:
            ValueError: the file is not UTF-8, or a line is not as expected; the message names it.
        """
        self._path, self._captions = path, dict[str, list[str]]()
        read = _read_json_line if path.suffix == ".jsonl" else _read_text_line
        for number, line in enumerate(read_lines(path, "captions"), start=1):
            if line.strip():
                key, captions = read(line, f"{path}:{number}")
                for caption in captions:
                    verify_characters(caption, f"{path}:{number}: captions")
                self._captions.setdefault(key, []).extend(captions)

    def describe(self) -> dict[str, Any]:
        """For the sidecar."""
        return {"source": self._path.name, "sha256": sha256_of(self._path)}

    def write(
        self, keys: list[str], present: list[list[str]], images: torch.Tensor | None, draws: list[Draws]
    ) -> list[list[str]]:
        """See `CocaCaptioner.write`; a key that is not in the file has no captions."""
        return [self._captions.get(key, []) for key in keys]


def _read_json_line(line: str, where: str) -> tuple[str, list[str]]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: captions: not a line of JSON ({error})") from None
    key = value.get("key") if isinstance(value, dict) else None
    captions = value.get("syn_text") if isinstance(value, dict) else None
    if not isinstance(key, str) or not isinstance(captions, list) or not all(isinstance(c, str) for c in captions):
        raise ValueError(f'{where}: captions: found {line[:60]}, expected {{"key": KEY, "syn_text": [caption, ...]}}')
    return key, captions


def _read_text_line(line: str, where: str) -> tuple[str, list[str]]:
    key, tab, caption = line.partition("\t")
    if not tab or not has_words(caption):
        raise ValueError(f"{where}: captions: found {line[:60]!r}, expected KEY<tab>caption")
    return key, [caption.strip()]


class CocaCaptioner:
    """Captions sampled from a CoCa model, top-p 0.9, at most 30 tokens.

    open_clip's own `generate` needs a class that transformers 5 no longer has, and draws from the global generator, so
    that a caption would depend on its neighbours in the batch; here each draws from numbers of its own.

    Attributes:
        image_size_px: height and width of the images that it takes.
    """

    def __init__(self, name: str, num_captions: int, device: torch.device):
        """Load the model; `name` is what `Teacher` takes.

        Raises:
            ValueError: not a CoCa model, and all that `Teacher` raises.
        """
        model, tokenizer, self._normalization = load_clip(name)
        self._tokenizer: Any = tokenizer  # of start and end, and back from tokens to words
        if not hasattr(model, "text_decoder"):
            raise ValueError(f"--captions {name}: found a model without a text decoder, expected a CoCa model "
                             f"(coca_ViT-B-32 or coca_ViT-L-14)")  # fmt: skip
        self._name, self._num_captions, self._device = name, num_captions, device
        self._weights_sha256 = hash_weights(model.state_dict())
        self._model = model.eval().requires_grad_(False).to(device)
        size = model.visual.image_size
        self.image_size_px: int | None = size if isinstance(size, int) else size[0]

    def describe(self) -> dict[str, Any]:
        """For the sidecar."""
        return {"source": self._name, "weights_sha256": self._weights_sha256}

    @torch.inference_mode()
    def write(
        self, keys: list[str], present: list[list[str]], images: torch.Tensor | None, draws: list[Draws]
    ) -> list[list[str]]:
        """Synthetic captions of a batch of samples.

        Args:
            keys: of the samples, B. present: captions in each sample's syn.json.
            images: uint8 [B,3,S,S] of `image_size_px`. draws: each sample's own generator.

        Returns:
            B lists of captions.
        """
        assert images is not None
        uniform = np.concatenate([rng.random((self._num_captions, _MAX_TOKENS)) for rng in draws])
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"):
            pixels = normalize_pixels(images.to(self._device), self._normalization)
            latent, tokens = self._model._encode_image(pixels)
            latent, tokens = (part.repeat_interleave(self._num_captions, dim=0) for part in (latent, tokens))
            sequences = self._sample(latent, tokens, torch.from_numpy(uniform).float().to(self._device)).tolist()
        captions = [self._decode(sequence) for sequence in sequences]
        return [captions[i : i + self._num_captions] for i in range(0, len(captions), self._num_captions)]

    def _sample(self, latent: torch.Tensor, image_tokens: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        """Token ids int64 [N,<=_MAX_TOKENS], the first a start token; after an end token, padding."""
        end, pad = self._tokenizer.eot_token_id, self._model.pad_id
        text = torch.full((len(uniform), 1), self._tokenizer.sot_token_id, device=self._device)
        done = torch.zeros(len(uniform), dtype=torch.bool, device=self._device)
        while text.shape[1] < _MAX_TOKENS and not done.all():
            output = self._model(None, text, image_latent=latent, image_embs=image_tokens, output_labels=False)
            logits = output["logits"][:, -1].float()
            if text.shape[1] < _MIN_TOKENS:
                logits[:, end] = -torch.inf
            drawn = sample_nucleus(logits, uniform[:, text.shape[1]], _TOP_P)
            text = torch.cat([text, torch.where(done, pad, drawn)[:, None]], dim=1)
            done |= drawn == end
        return text

    def _decode(self, sequence: list[int]) -> str:
        end = self._tokenizer.eot_token_id
        words = sequence[1 : sequence.index(end)] if end in sequence else sequence[1:]
        return " ".join(self._tokenizer.decode(words).split())


def sample_nucleus(logits: torch.Tensor, uniform: torch.Tensor, top_p: float) -> torch.Tensor:
    """Draw from the fewest likeliest tokens whose probabilities reach `top_p` (Holtzman et al., arXiv 1904.09751).

    Args:
        logits: float32 [N,V]. uniform: float32 [N] in [0,1): the draws. top_p: in (0,1].

    Returns:
        int64 [N].
    """
    probabilities, tokens = logits.softmax(dim=1).sort(dim=1, descending=True, stable=True)
    reached = probabilities.cumsum(dim=1)
    kept = probabilities * (reached - probabilities < top_p)
    below = kept.cumsum(dim=1) <= uniform[:, None] * kept.sum(dim=1, keepdim=True)
    chosen = torch.minimum(below.sum(dim=1), (kept > 0).sum(dim=1) - 1)  # rounding must not reach past what is kept
    return tokens.gather(1, chosen[:, None])[:, 0]


Captioner = ShardCaptions | FileCaptions | CocaCaptioner


def load_captioner(source: str, num_captions: int, device: torch.device) -> Captioner:
    """From `--captions`: "shard", a file, or a CoCa model (what `Teacher` takes).

    Raises:
        ValueError, OSError: see `FileCaptions` and `CocaCaptioner`.
    """
    if source == FROM_SHARD:
        return ShardCaptions()
    if Path(source).is_file():
        return FileCaptions(Path(source))
    return CocaCaptioner(source, num_captions, device)
