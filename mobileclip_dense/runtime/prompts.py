"""Embeddings of prompts without torch: CLIP's tokenizer and text tower, with a cache on disk."""

import hashlib
import html
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import ftfy
import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, normalizers

from mobileclip_dense.artifact.artifact import TOKENIZER_FILE, Artifact, artifact_sha256, load_artifact
from mobileclip_dense.artifact.files import sha256_of, staged_file
from mobileclip_dense.artifact.text import read_lines
from mobileclip_dense.pages.progress import progress_bar
from mobileclip_dense.runtime.predictor import load_model


class ClipTokenizer:
    """open_clip's CLIP tokenizer, from the tokenizer.json of a text tower's artifact.

    It gives the same tokens, with two exceptions: U+0345 is not a letter here, and a start or end token that is spelled
    out inside a prompt is recognised at any position.
    """

    def __init__(self, path: Path):
        self._tokenizer = Tokenizer.from_file(str(path))
        # `clean` replaces the normalizer of the file, which lacks ftfy and HTML entities.
        self._tokenizer.normalizer = normalizers.Sequence([])

    def __call__(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.int64], list[str]]:
        """Tokens int64 [B,L] (start, text, end, zeros), and the texts that were truncated."""
        encodings = [self._tokenizer.encode(clean(text)) for text in texts]
        cut = [text for text, encoding in zip(texts, encodings, strict=True) if encoding.overflowing]
        return np.array([encoding.ids for encoding in encodings], np.int64), cut


def clean(text: str) -> str:
    """Clean a text as CLIP does: repair its encoding, resolve HTML entities, collapse spaces, lower the case."""
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split()).lower()


def read_prompts(prompts: Sequence[str], file: Path | None) -> list[str]:
    """Collect the prompts of the command line and of a UTF-8 text file (one per line, empty lines skipped).

    Raises:
        FileNotFoundError: the file does not exist. ValueError: the file is not UTF-8, a prompt is empty, repeated or
            not text, or there are fewer than two prompts.
    """
    found = [prompt.strip() for prompt in prompts]
    if file is not None:
        found += [line.strip() for line in read_lines(file, "--prompts-file") if line.strip()]
    require_text("--prompts", found)
    if "" in found:
        raise ValueError("--prompts: found an empty one")
    if twice := sorted({prompt for prompt in found if found.count(prompt) > 1}):
        raise ValueError(f"--prompts: found {twice[0]!r} twice")
    if len(found) < 2:
        raise ValueError(f"--prompts, --prompts-file: found {len(found)}, expected at least two to choose from")
    return found


def require_text(flag: str, texts: Sequence[str]) -> None:
    """Raise ValueError if a text contains bytes of the command line that are not UTF-8."""
    for text in texts:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError(f"{flag}: found {text!r}, expected UTF-8 text; type it in a terminal set to UTF-8, or use "
                             f"--prompts-file") from None  # fmt: skip


def find_text_tower(image_tower: Path, artifact: Artifact, given: Path | None) -> Path:
    """Find the text tower of an image tower's run: the given one, or one in the same folder.

    Raises:
        FileNotFoundError, ValueError: there is none, or the given artifact is not a text tower of that run.
    """
    if given is None:
        damaged = ""
        for folder in sorted(image_tower.absolute().parent.glob(f"*-embed-text-*.{artifact.runtime}")):
            try:
                text = load_artifact(folder)
            except (ValueError, OSError) as error:  # it may be of another run
                damaged += f"; {error}"
                continue
            if text.parent["weights_sha256"] == artifact.parent["weights_sha256"]:
                return folder
        raise FileNotFoundError(f"{image_tower}: found no text tower of the same run beside it; give one with --text"
                                f"{damaged}")  # fmt: skip
    text = load_artifact(given)
    if text.task != "embed-text":
        raise ValueError(f"{given}: --text: task: found {text.task}, expected embed-text")
    if text.parent["weights_sha256"] != artifact.parent["weights_sha256"]:
        raise ValueError(f"{given}: --text: found a text tower of another run than {image_tower}: their vectors cannot "
                         f"be compared")  # fmt: skip
    return given


def embed_prompts(
    folder: Path, prompts: Sequence[str], templates: Sequence[str], cache: Path, num_threads: int | None
) -> npt.NDArray[np.float32]:
    """Embed prompts as unit vectors float32 [N,D]; the vectors of a prompt's templates are averaged, as in CLIP.

    Args:
        folder: artifact of a text tower. templates: each contains `{}`, which the prompt replaces.
        cache: folder for the vectors, by the hash of the artifact, its tokenizer and the texts. If it cannot be
            written, a warning is printed.

    Raises:
        FileNotFoundError, ValueError: the artifact is damaged, or has no tokenizer.json.
    """
    artifact = load_artifact(folder)
    if TOKENIZER_FILE not in artifact.files:
        raise ValueError(f"{folder}: {TOKENIZER_FILE}: not in this artifact; export its run again")
    identity = [artifact_sha256(folder), sha256_of(folder / TOKENIZER_FILE), list(prompts), list(templates)]
    path = cache / f"{hashlib.sha256(json.dumps(identity).encode()).hexdigest()}.npy"
    shape = (len(prompts), artifact.outputs[0].shape[-1])
    if (kept := _read_cached(path, shape)) is not None:
        return kept
    texts = [template.replace("{}", prompt) for prompt in prompts for template in templates]
    tokens, cut = ClipTokenizer(folder / TOKENIZER_FILE)(texts)
    for text in cut:
        print(f"warning: {text[:60]!r}: longer than {tokens.shape[1]} tokens; its end is cut off", file=sys.stderr)
    model = load_model(folder, num_threads=num_threads).predict
    rows = progress_bar(tokens, "prompts", unit="text", shown=len(tokens) >= 20)
    output, dtype = artifact.outputs[0].name, artifact.input.dtype
    vectors = np.concatenate([model(row[None].astype(dtype))[output] for row in rows]).astype(np.float32)
    means = vectors.reshape(len(prompts), len(templates), -1).mean(axis=1)
    embeddings = means / np.linalg.norm(means, axis=1, keepdims=True)
    try:
        with staged_file(path) as staging:
            np.save(staging, embeddings)
    except OSError as error:
        print(f"warning: the vectors of the prompts are not kept, the next start computes them again ({error}); "
              "--cache takes another folder", file=sys.stderr)  # fmt: skip
    return embeddings


def _read_cached(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.float32] | None:
    """The cached vectors, or None if there are none or the file is damaged."""
    try:
        kept: npt.NDArray[np.float32] = np.load(path, allow_pickle=False)
    except Exception:  # NumPy raises whatever the damage leads to: of zip files, of Python's parser, of memory
        return None
    if not isinstance(kept, np.ndarray):  # an archive
        return None
    return kept if kept.shape == shape and kept.dtype == np.float32 and np.isfinite(kept).all() else None
