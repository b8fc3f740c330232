"""The sources of synthetic captions: the shard itself, a file, or a CoCa model of open_clip."""

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

FROM_SHARD = "shard"  # the value of --captions
_MAX_TOKENS = 30  # per caption, as in open_clip's `generate`
_MIN_TOKENS = 5
_TOP_P = 0.9  # nucleus sampling: the captions of an image should be likely but differ


class ShardCaptions:
    """The captions that are already in syn.json of each sample."""

    image_size_px: int | None = None

    def describe(self) -> dict[str, Any]:
        """The source of the captions, for reinforcement.json."""
        return {"source": "shard"}

    def write(
        self, keys: list[str], present: list[list[str]], images: torch.Tensor | None, draws: list[Draws]
    ) -> list[list[str]]:
        """Return `present`; see `CocaCaptioner.write`."""
        return present


class FileCaptions:
    """Captions from a file, by sample key.

    A .jsonl file has a line {"key": KEY, "syn_text": [caption, ...]} for each sample. Any other file has a line
    KEY<tab>caption for each caption. The encoding is UTF-8, with or without a byte order mark.
    """

    image_size_px: int | None = None

    def __init__(self, path: Path):
        """Read the whole file.

        Raises:
            ValueError: the file is not UTF-8, or a line is malformed; the message names the line.
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
        """The source of the captions, for reinforcement.json."""
        return {"source": self._path.name, "sha256": sha256_of(self._path)}

    def write(
        self, keys: list[str], present: list[list[str]], images: torch.Tensor | None, draws: list[Draws]
    ) -> list[list[str]]:
        """See `CocaCaptioner.write`. A sample whose key is not in the file has no captions."""
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
    """Captions sampled from a CoCa model, with top-p 0.9 and at most 30 tokens.

    open_clip's `generate` needs a class that was removed in transformers 5. It also draws from the global random
    generator, so that a caption would depend on the other samples in the batch; here each sample has its own generator.

    Attributes:
        image_size_px: height and width of the model's input images.
    """

    def __init__(self, name: str, num_captions: int, device: torch.device):
        """Load the model.

        Args:
            name: a model, as in `Teacher`.
            num_captions: captions per image.
            device: device of the model.

        Raises:
            ValueError: the model is not a CoCa model, or an error of `Teacher`.
        """
        model, tokenizer, self._normalization = load_clip(name)
        self._tokenizer: Any = tokenizer  # Any: `Tokenizer` declares neither the special tokens nor `decode`
        if not hasattr(model, "text_decoder"):
            raise ValueError(f"--captions {name}: found a model without a text decoder, expected a CoCa model "
                             f"(coca_ViT-B-32 or coca_ViT-L-14)")  # fmt: skip
        self._name, self._num_captions, self._device = name, num_captions, device
        self._weights_sha256 = hash_weights(model.state_dict())
        self._model = model.eval().requires_grad_(False).to(device)
        size = model.visual.image_size
        self.image_size_px: int | None = size if isinstance(size, int) else size[0]

    def describe(self) -> dict[str, Any]:
        """The source of the captions, for reinforcement.json."""
        return {"source": self._name, "weights_sha256": self._weights_sha256}

    @torch.inference_mode()
    def write(
        self, keys: list[str], present: list[list[str]], images: torch.Tensor | None, draws: list[Draws]
    ) -> list[list[str]]:
        """Write synthetic captions for a batch of B samples.

        Args:
            keys: keys of the samples.
            present: captions in syn.json of each sample.
            images: uint8 [B,3,S,S], S is `image_size_px`.
            draws: a random generator for each sample.

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
        """Token ids int64 [N,<=_MAX_TOKENS], with a start token first and padding after the end token."""
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
    """Sample from the smallest set of most likely tokens with total probability `top_p` (Holtzman, arXiv 1904.09751).

    Args:
        logits: float32 [N,V].
        uniform: float32 [N], uniform random numbers in [0,1).
        top_p: total probability of the set, in (0,1].

    Returns:
        The sampled tokens, int64 [N].
    """
    probabilities, tokens = logits.softmax(dim=1).sort(dim=1, descending=True, stable=True)
    cumulative = probabilities.cumsum(dim=1)
    nucleus = probabilities * (cumulative - probabilities < top_p)
    below = nucleus.cumsum(dim=1) <= uniform[:, None] * nucleus.sum(dim=1, keepdim=True)
    chosen = torch.minimum(below.sum(dim=1), (nucleus > 0).sum(dim=1) - 1)  # rounding may exceed the nucleus by one
    return tokens.gather(1, chosen[:, None])[:, 0]


Captioner = ShardCaptions | FileCaptions | CocaCaptioner


def load_captioner(source: str, num_captions: int, device: torch.device) -> Captioner:
    """The captioner for a value of `--captions`: "shard", a file, or a CoCa model as in `Teacher`.

    Raises:
        ValueError, OSError: see `FileCaptions` and `CocaCaptioner`.
    """
    if source == FROM_SHARD:
        return ShardCaptions()
    if Path(source).is_file():
        return FileCaptions(Path(source))
    return CocaCaptioner(source, num_captions, device)
