"""DataCompDR's reinforcement of an image: augmentations, teacher embeddings and synthetic captions, in these members:

    syn.json    {"syn_text": [S strings]}
    paug.json   {"param_aug": [A entries], or a JSON string of them}, see `captioned.augmentation`
    npz         image_emb [A,D], text_emb [C+S,D], float16 (or float32)
    pth.gz      the same as a gzipped torch dict, bfloat16

The rows of the C original captions come first; synthetic caption j has row C+j. D is the sum of the teachers' widths
(1536 = 2 x 768 in DataCompDR). Newer files store each kind of caption separately, as `<key>_emb`: text_emb or texts_emb
[C,D], and syn_text_emb [S,D].
"""

import gzip
import io
import json
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from mobileclip_dense.data.captioned.augmentation import Augmentation, read_param_aug, to_param_aug
from mobileclip_dense.data.captioned.caption_text import read_json, verify_characters

EMBEDDING_MEMBERS = ("pth.gz", "npz")
SIDECAR = "reinforcement.json"  # describes the teachers; `mobileclip-dense reinforce` writes it next to the shards


@dataclass(frozen=True, kw_only=True)
class Reinforcement:
    """The reinforcement of one image.

    Attributes:
        augmentations: A augmentations.
        image_embeddings: [A,D], float32, float16 or bfloat16, one row per augmentation.
        text_embeddings: [C+S,D], original captions first.
        synthetic_captions: S captions.
    """

    augmentations: tuple[Augmentation, ...]
    image_embeddings: torch.Tensor
    text_embeddings: torch.Tensor
    synthetic_captions: tuple[str, ...]


def write_reinforcement(reinforcement: Reinforcement, *, storage: Literal["bf16", "fp16"]) -> dict[str, bytes]:
    """The members of a reinforcement by suffix: syn.json, paug.json, and pth.gz (bf16) or npz (fp16). Deterministic.

    Raises:
        ValueError: the numbers of rows are inconsistent.
    """
    images, texts = reinforcement.image_embeddings.cpu(), reinforcement.text_embeddings.cpu()
    check_rows((images, texts), len(reinforcement.augmentations), len(reinforcement.synthetic_captions))
    entries = [to_param_aug(augmentation) for augmentation in reinforcement.augmentations]
    members = {
        "syn.json": json.dumps({"syn_text": list(reinforcement.synthetic_captions)}).encode(),
        "paug.json": json.dumps({"param_aug": json.dumps(entries)}).encode(),  # a string, as published
    }
    buffer = io.BytesIO()
    if storage == "bf16":
        # Clones, as torch.save writes the whole storage of a view.
        torch.save({"image_emb": images.bfloat16().clone(), "text_emb": texts.bfloat16().clone()}, buffer)
        return members | {"pth.gz": gzip.compress(buffer.getvalue(), compresslevel=6, mtime=0)}
    np.savez(buffer, image_emb=images.half().numpy(), text_emb=texts.half().numpy())
    return members | {"npz": buffer.getvalue()}


def read_embeddings(members: dict[str, bytes]) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The image embeddings [A,D] and text embeddings [C+S,D] in their stored dtype; None without pth.gz and npz.

    Raises:
        ValueError: the member cannot be read, or does not hold two matrices of the same width.
    """
    name = next((name for name in EMBEDDING_MEMBERS if name in members), None)
    if name is None:
        return None
    tables = _read_tensors(members[name]) if name == "pth.gz" else _read_arrays(members[name])
    original = next((tables[key] for key in ("text_emb", "texts_emb", "caption_emb") if key in tables), None)
    if "image_emb" not in tables or original is None:
        raise ValueError(f"{name}: found {', '.join(sorted(tables)) or 'nothing'}, expected image_emb and text_emb")
    images = tables["image_emb"]
    texts = torch.cat([original, tables["syn_text_emb"]]) if "syn_text_emb" in tables else original
    if images.ndim != 2 or texts.ndim != 2 or images.shape[1] != texts.shape[1]:
        raise ValueError(
            f"{name}: found image_emb {list(images.shape)} and text_emb {list(texts.shape)}, expected "
            f"two matrices of the same width"
        )
    return images, texts


def read_augmentations(members: dict[str, bytes]) -> list[Any]:
    """The A entries of paug.json, to be parsed with `from_param_aug`.

    Raises:
        ValueError: the member is missing or damaged.
    """
    return read_param_aug(_read_object(members, "paug.json", "param_aug"))


def read_synthetic_captions(members: dict[str, bytes]) -> list[str]:
    """The S synthetic captions of syn.json.

    Raises:
        ValueError: the member is missing, damaged or not UTF-8, or a caption is not text.
    """
    captions = _read_object(members, "syn.json", "syn_text")
    captions = [captions] if isinstance(captions, str) else captions
    if not isinstance(captions, list) or not captions or not all(isinstance(caption, str) for caption in captions):
        raise ValueError(f"syn.json: syn_text: found {repr(captions)[:80]}, expected a list of strings")
    for caption in captions:
        verify_characters(caption, "syn.json: syn_text")
    return captions


def check_rows(embeddings: tuple[torch.Tensor, torch.Tensor], num_augmentations: int, num_synthetic: int) -> None:
    """Raises ValueError unless each augmentation and caption has a row and there is at least one original caption."""
    images, texts = embeddings
    if len(images) != num_augmentations:
        raise ValueError(
            f"image_emb: found {len(images)} rows, expected one for each of the {num_augmentations} augmentations"
        )
    if len(texts) <= num_synthetic:
        raise ValueError(
            f"text_emb: found {len(texts)} rows, expected one for each original caption and {num_synthetic} for "
            f"synthetic captions"
        )


def _read_object(members: dict[str, bytes], name: str, key: str) -> Any:
    if name not in members:
        raise ValueError(f"{name}: missing; found {', '.join(sorted(members))}")
    value = read_json(members[name], name)
    if not isinstance(value, dict) or key not in value:
        raise ValueError(f"{name}: found {repr(value)[:80]}, expected an object with {key}")
    return value[key]


def _read_tensors(data: bytes) -> dict[str, torch.Tensor]:
    try:
        value = torch.load(io.BytesIO(gzip.decompress(data)), weights_only=True)
    except Exception as error:  # torch's restricted unpickler raises exceptions of any type for damaged files
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise ValueError(f"pth.gz: not a gzipped torch dict of tensors ({reason})") from None
    if not isinstance(value, dict):
        raise ValueError(f"pth.gz: found a {type(value).__name__}, expected a dict of tensors")
    return {key: tensor for key, tensor in value.items() if isinstance(tensor, torch.Tensor)}


def _read_arrays(data: bytes) -> dict[str, torch.Tensor]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays.files if key.endswith("_emb")}
    except Exception as error:  # so does NumPy
        raise ValueError(f"npz: not a NumPy archive of float arrays ({error})") from None
