import gzip
import io
import json
import zipfile
from typing import Literal

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from mobileclip_dense.data.captioned.augmentation import sample_augmentation
from mobileclip_dense.data.captioned.reinforced import Reinforcement, write_reinforcement
from tests.data.shards import read_reinforcement

A, C, S, D = 4, 1, 5, 24


def reinforcement(seed: int = 0, *, num_original: int = C) -> Reinforcement:
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    return Reinforcement(
        augmentations=tuple(sample_augmentation(50, 70, rng) for _ in range(A)),
        image_embeddings=normalize(torch.randn(A, D, generator=generator)),
        text_embeddings=normalize(torch.randn(num_original + S, D, generator=generator)),
        synthetic_captions=tuple(f"caption {index} of a déjà-vu" for index in range(S)),
    )


def torch_dict(tables: dict[str, torch.Tensor]) -> bytes:
    buffer = io.BytesIO()
    torch.save(tables, buffer)
    return gzip.compress(buffer.getvalue())


@pytest.mark.parametrize(("storage", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_what_was_written_is_read(storage: Literal["bf16", "fp16"], dtype: torch.dtype) -> None:
    written = reinforcement()
    found = read_reinforcement(write_reinforcement(written, storage=storage))
    assert found is not None
    assert found.augmentations == written.augmentations
    assert found.synthetic_captions == written.synthetic_captions
    assert torch.equal(found.image_embeddings, written.image_embeddings.to(dtype))
    assert torch.equal(found.text_embeddings, written.text_embeddings.to(dtype))


@pytest.mark.parametrize("storage", ["bf16", "fp16"])
def test_the_same_content_gives_the_same_bytes(
    storage: Literal["bf16", "fp16"], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write_reinforcement(reinforcement(), storage=storage)
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert write_reinforcement(reinforcement(), storage=storage) == first
    assert write_reinforcement(reinforcement(1), storage=storage) != first


def test_a_part_of_a_larger_table_is_written_without_the_rest() -> None:
    large = torch.zeros(10_000, D, dtype=torch.bfloat16)
    whole = reinforcement()
    part = Reinforcement(
        augmentations=whole.augmentations, image_embeddings=large[:A], text_embeddings=large[: C + S],
        synthetic_captions=whole.synthetic_captions,
    )  # fmt: skip
    assert len(gzip.decompress(write_reinforcement(part, storage="bf16")["pth.gz"])) < 10_000


def test_published_files_are_read_by_torch_and_numpy_alone() -> None:
    written = reinforcement()
    members = write_reinforcement(written, storage="bf16")
    tables = torch.load(io.BytesIO(gzip.decompress(members["pth.gz"])), weights_only=True)
    assert torch.equal(tables["text_emb"], written.text_embeddings.bfloat16())
    arrays = np.load(io.BytesIO(write_reinforcement(written, storage="fp16")["npz"]))
    np.testing.assert_array_equal(arrays["image_emb"], written.image_embeddings.half().numpy())
    assert len(json.loads(json.loads(members["paug.json"])["param_aug"])) == A


def test_param_aug_may_be_a_list() -> None:
    members = write_reinforcement(reinforcement(), storage="fp16")
    members["paug.json"] = json.dumps({"param_aug": json.loads(json.loads(members["paug.json"])["param_aug"])}).encode()
    found = read_reinforcement(members)
    assert found is not None
    assert found.augmentations == reinforcement().augmentations


@pytest.mark.parametrize("original", ["text_emb", "texts_emb"])
def test_newer_files_with_a_table_for_each_key_are_read_in_the_same_order(original: str) -> None:
    written = reinforcement(num_original=2)
    members = write_reinforcement(written, storage="bf16")
    originals, synthetic = written.text_embeddings.split([2, S])
    members["pth.gz"] = torch_dict({"syn_text_emb": synthetic, "image_emb": written.image_embeddings,
                                    original: originals})  # fmt: skip
    found = read_reinforcement(members)
    assert found is not None
    assert torch.equal(found.text_embeddings, written.text_embeddings)


def test_a_plain_sample_has_no_reinforcement() -> None:
    members = write_reinforcement(reinforcement(), storage="bf16")
    del members["pth.gz"]
    assert read_reinforcement({"jpg": b"", "txt": b"a caption", **members}) is None


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("executed",)


def _pickled() -> bytes:
    buffer = io.BytesIO()
    torch.save({"image_emb": Malicious()}, buffer)
    return gzip.compress(buffer.getvalue())


def _pickled_array() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, image_emb=np.array([Malicious()], dtype=object))
    return buffer.getvalue()


ROWS = torch.zeros(A, D)
DAMAGED = {
    "truncated gzip": ("pth.gz", torch_dict({"image_emb": ROWS})[:-30], "pth.gz: not a gzipped torch dict"),
    "not gzip": ("pth.gz", b"hello", "pth.gz: not a gzipped torch dict"),
    "empty": ("pth.gz", b"", "pth.gz: not a gzipped torch dict"),
    "not torch": ("pth.gz", gzip.compress(b"hello"), "pth.gz: not a gzipped torch dict"),
    "a pickle": ("pth.gz", _pickled(), "pth.gz: not a gzipped torch dict"),
    "an array pickle": ("npz", _pickled_array(), "npz: not a NumPy archive"),
    "a list": ("pth.gz", torch_dict([ROWS]), "found a list, expected a dict"),  # type: ignore[arg-type]
    "no text": ("pth.gz", torch_dict({"image_emb": ROWS}), "found image_emb, expected image_emb and text_emb"),
    "two widths": ("pth.gz", torch_dict({"image_emb": ROWS, "text_emb": torch.zeros(C + S, D + 1)}), "same width"),
    "a vector": ("pth.gz", torch_dict({"image_emb": ROWS[0], "text_emb": torch.zeros(C + S, D)}), "same width"),
    "too few images": ("pth.gz", torch_dict({"image_emb": ROWS[1:], "text_emb": torch.zeros(C + S, D)}),
                       "image_emb: found 3 rows, expected one for each of the 4"),
    "no original row": ("pth.gz", torch_dict({"image_emb": ROWS, "text_emb": torch.zeros(S, D)}),
                        "text_emb: found 5 rows"),
    "not npz": ("npz", b"hello", "npz: not a NumPy archive"),
    "bad syn.json": ("syn.json", b"{", "syn.json: not valid JSON"),
    "no syn_text": ("syn.json", b"{}", "syn.json: found {}"),
    "syn_text of numbers": ("syn.json", b'{"syn_text": [1]}', r"syn_text: found \[1\]"),
    "bad paug.json": ("paug.json", b"\xff", "paug.json: not valid JSON"),
    "bad param_aug": ("paug.json", b'{"param_aug": "["}', "param_aug: found"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_member_is_refused_in_words(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, data, message = DAMAGED[case]
    members = write_reinforcement(reinforcement(), storage="bf16")
    if name == "npz":
        del members["pth.gz"]
    with pytest.raises(ValueError, match=message):
        read_reinforcement({**members, name: data})
    assert "executed" not in capsys.readouterr().out


def test_a_missing_member_is_named() -> None:
    members = write_reinforcement(reinforcement(), storage="bf16")
    del members["paug.json"]
    with pytest.raises(ValueError, match=r"paug\.json: missing; found pth\.gz, syn\.json"):
        read_reinforcement(members)


def test_rows_that_do_not_fit_are_not_written() -> None:
    whole = reinforcement()
    wrong = Reinforcement(
        augmentations=whole.augmentations[1:], image_embeddings=whole.image_embeddings,
        text_embeddings=whole.text_embeddings, synthetic_captions=whole.synthetic_captions,
    )  # fmt: skip
    with pytest.raises(ValueError, match="image_emb: found 4 rows, expected one for each of the 3"):
        write_reinforcement(wrong, storage="bf16")


def test_a_compressed_archive_is_read() -> None:
    members = write_reinforcement(reinforcement(), storage="fp16")
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(members["npz"])) as stored,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in stored.namelist():
            packed.writestr(name, stored.read(name))
    found = read_reinforcement({**members, "npz": buffer.getvalue()})
    assert found is not None
    assert torch.equal(found.image_embeddings, reinforcement().image_embeddings.half())
