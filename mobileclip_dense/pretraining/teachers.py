"""Teachers: frozen CLIP models. A student learns to match their similarities (MobileCLIP, arXiv 2311.17049, section 3).

Each teacher has its own image size, normalization and tokenizer.
"""

import hashlib
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch.nn import functional

from mobileclip_dense.artifact.hidden import is_hidden
from mobileclip_dense.artifact.preprocess import Normalization
from mobileclip_dense.config import PretrainConfig
from mobileclip_dense.models.clip import OPEN_CLIP_CONFIG, Tokenizer, build_clip, clip_name, normalize_pixels
from mobileclip_dense.models.weights import load_clip_weights
from mobileclip_dense.run.folder import fill_model, load_run

_FORMS = f"MODEL:TAG or MODEL:FILE of open_clip, a pretraining run, or a folder with {OPEN_CLIP_CONFIG}"


class Teacher:
    """A frozen CLIP model with its tokenizer and preprocessing.

    Attributes:
        name: the specification that it was loaded from.
        device: device of the model. It computes in bf16 autocast on a GPU, in float32 on a CPU.
        normalization: normalization of pixels in 0..1.
        weights_sha256: hash of the names, dtypes, shapes and values of all weights, independent of the file.
        temperature: factor on the cosine similarities in the teacher's softmax.
        image_size_px: height and width of its input images.
        dim: width D of its embeddings.
    """

    def __init__(self, name: str, device: torch.device, temperature: float | None = None):
        """Load a teacher.

        Args:
            name: MODEL:TAG or MODEL:FILE of open_clip, the folder of a pretraining run, or a folder with
                open_clip_config.json.
            device: device of the model.
            temperature: None: the model's own learned temperature.

        Raises:
            ValueError: there is no such model or tag, or the weights do not fit the model.
            FileNotFoundError: there is no such file.
            OSError: a tag could not be downloaded.
        """
        model, tokenizer, self.normalization = load_clip(name)
        self.name, self.device, self._tokenizer = name, device, tokenizer
        self.weights_sha256 = hash_weights(model.state_dict())
        self.temperature = float(model.logit_scale.detach().exp()) if temperature is None else temperature
        self._model = model.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
        size = model.visual.image_size
        height, width = (size, size) if isinstance(size, int) else size
        if height != width:
            raise ValueError(f"teacher {name}: image size: found {height}x{width}, expected a square")
        self.image_size_px = int(height)
        self.dim = int(self.encode_texts([""]).shape[1])

    def move(self, device: torch.device) -> None:
        """Move the model to another device."""
        self.device = device
        self._model.to(device)

    def __repr__(self) -> str:
        return f"{self.name} ({self.image_size_px} px, {self.dim}-d, temperature {self.temperature:.4g})"

    def describe(self) -> dict[str, Any]:
        """The record of the teacher for reinforcement.json: what a user of its embeddings has to know."""
        return {
            "name": self.name,
            "weights_sha256": self.weights_sha256,
            "image_size_px": self.image_size_px,
            "dim": self.dim,
            "temperature": self.temperature,
            "mean": list(self.normalization.mean),
            "std": list(self.normalization.std),
        }

    @torch.inference_mode()
    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [B,3,S,S] on any device, S is `image_size_px` -> float32 [B,D] of unit norm on the teacher's device."""
        size = self.image_size_px
        assert images.dtype == torch.uint8 and images.shape[1:] == (3, size, size), (images.dtype, images.shape)
        pixels = normalize_pixels(images.to(self.device, non_blocking=True), self.normalization)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            features = self._model.encode_image(pixels.contiguous(memory_format=torch.channels_last))
        return functional.normalize(features.float(), dim=-1)

    def tokenize(self, texts: list[str]) -> torch.Tensor:
        """Captions -> tokens int64 [B,L], truncated at the teacher's context length L."""
        return self._tokenizer(texts)

    @torch.inference_mode()
    def encode_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens of `tokenize`, int64 [B,L] -> float32 [B,D] of unit norm on the teacher's device."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            features = self._model.encode_text(tokens.to(self.device, non_blocking=True))
        return functional.normalize(features.float(), dim=-1)

    def encode_texts(self, texts: list[str]) -> torch.Tensor:
        """Captions -> float32 [B,D] of unit norm on the teacher's device."""
        return self.encode_tokens(self.tokenize(texts))


def load_clip(name: str) -> tuple[Any, Tokenizer, Normalization]:
    """The model that `name` specifies, its tokenizer and its image normalization; see `Teacher`."""
    folder = Path(name)
    if (folder / "config.json").is_file():
        run = load_run(folder)
        if not isinstance(run.config, PretrainConfig):
            raise ValueError(f"{folder}: teacher: found a fine-tuning run, expected a pretraining run")
        model, tokenizer, normalization = build_clip(run.config.model, run.config.image_size_px)
        fill_model(model, run)
        return model, tokenizer, normalization
    if (folder / OPEN_CLIP_CONFIG).is_file():
        weights = [path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin", ".pth")]
        if all(is_hidden(path.name) for path in weights):
            raise FileNotFoundError(f"{folder}: teacher: found no weights beside {OPEN_CLIP_CONFIG}")
        return _from_open_clip(f"local-dir:{folder}", None, name)
    model_name, colon, source = name.partition(":")
    if not colon or not source:
        raise ValueError(f"teacher: found {name!r}, expected {_FORMS}")
    if "multimodal_cfg" in (open_clip.get_model_config(model_name) or {}):
        return _from_open_clip(model_name, source, name)  # a CoCa, which `build_clip` does not build
    tag = source if source in open_clip.list_pretrained_tags_by_model(clip_name(model_name)) else None
    model, tokenizer, normalization = build_clip(model_name, tag=tag)
    load_clip_weights(model, source, model=model_name)
    return model, tokenizer, normalization


def _from_open_clip(model_name: str, source: str | None, name: str) -> tuple[Any, Tokenizer, Normalization]:
    try:
        tokenizer = open_clip.get_tokenizer(model_name)
        model = open_clip.create_model(model_name, pretrained=source)
    except Exception as error:  # a file that is not a checkpoint can raise any error
        raise ValueError(f"{name}: open_clip could not load it ({str(error)[:300]})") from None
    config = model.visual.preprocess_cfg
    return model, tokenizer, Normalization(mean=tuple(config["mean"]), std=tuple(config["std"]))


def hash_weights(state: dict[str, torch.Tensor]) -> str:
    """The hex SHA-256 of the names, dtypes, shapes and values of all tensors."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def join_embeddings(parts: list[torch.Tensor]) -> torch.Tensor:
    """Concatenate the embeddings [B,D_k] of several teachers to [B,sum of D_k], on the CPU, without normalizing."""
    return torch.cat(parts, dim=1).cpu()
