import codecs
import io
import json
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F
from torchvision.transforms.autoaugment import _apply_op

from mobileclip_dense.data.captioned.samples import BadSample
from mobileclip_dense.data.captioned.shards import Sample, list_shards, read_samples
from mobileclip_dense.data.captioned.stream import Batch, CaptionStream, Position, StreamError, summarise_bad
from tests.data.shards import (
    WIDTH,
    jpeg,
    plain_members,
    read_reinforcement,
    record,
    reinforced_members,
    text_of,
    tokenize,
    write_shard,
    write_shards,
)


def stream(*folders: Path, **changes: Any) -> CaptionStream:
    settings: dict[str, Any] = {
        "image_size_px": 16, "batch_size": 4, "use_reinforcement": False, "crop_scale_min": 0.5, "shuffle_block": 7,
        "max_bad_share": 0.01, "seed": 3, **changes,
    }  # fmt: skip
    return CaptionStream([list_shards(folder, "train") for folder in folders], tokenize, **settings)


def take(dataset: CaptionStream, count: int, num_workers: int = 0) -> list[Batch]:
    return list(islice(DataLoader(dataset, batch_size=None, num_workers=num_workers), count))


def assert_same(found: Batch, expected: Batch) -> None:
    for name, one, other in zip(Batch._fields, found, expected, strict=True):
        if isinstance(one, torch.Tensor):
            assert torch.equal(one, other), name
        else:
            assert one == other, name


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("plain"), 4)


@pytest.fixture(scope="module")
def reinforced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("reinforced"), 4, reinforced=True)


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_a_resumed_stream_continues_bit_for_bit(reinforced: Path, num_workers: int) -> None:
    whole = take(stream(reinforced, use_reinforcement=True), 12, num_workers)
    places = max(1, num_workers)
    for first in (1, 2, 5, 6) if num_workers == 0 else (5,):
        positions: list[Position | None] = [None] * places
        for number, batch in enumerate(whole[:first]):
            positions[number % places] = batch.position
        resumed = stream(reinforced, use_reinforcement=True, positions=positions, first_batch=first)
        for found, expected in zip(take(resumed, 12 - first, num_workers), whole[first:], strict=True):
            assert_same(found, expected)


@pytest.mark.parametrize(
    "changes", [{"shuffle_block": 1}, {"shuffle_block": 100}, {"batch_size": 1}, {"batch_size": 9}]
)
def test_any_block_and_batch_resumes(plain: Path, changes: dict[str, int]) -> None:
    whole = take(stream(plain, **changes), 9)
    for first in range(1, 9):
        resumed = stream(plain, positions=[whole[first - 1].position], first_batch=first, **changes)
        for found, expected in zip(take(resumed, 9 - first), whole[first:], strict=True):
            assert_same(found, expected)


def test_weighted_sources_resume_and_keep_their_shares(tmp_path: Path, plain: Path, reinforced: Path) -> None:
    other = write_shard(tmp_path / "train" / "0.tar", {f"x{i}": plain_members(i) for i in range(6)}).parent.parent
    weighted = {"weights": [3.0, 1.0], "batch_size": 20}
    whole = take(stream(plain, other, **weighted), 60)
    found = take(stream(plain, other, positions=[whole[39].position], first_batch=40, **weighted), 20)
    for one, expected in zip(found, whole[40:], strict=True):
        assert_same(one, expected)
    keys = [key for batch in whole for key in batch.keys]
    assert sum(key.startswith("x") for key in keys) / len(keys) == pytest.approx(0.25, abs=0.1)  # of 200 shards


def test_resuming_reads_one_shard_again_and_no_more(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = take(stream(plain), 40)
    opened = []

    def counted(shard: str, start: int = 0) -> Any:
        opened.append(shard)
        return read_samples(shard, start)

    monkeypatch.setattr("mobileclip_dense.data.captioned.stream.read_samples", counted)
    assert_same(take(stream(plain, positions=[whole[38].position], first_batch=39), 1)[0], whole[39])
    assert len(opened) <= 4  # of the 27 that were read to get there


def test_a_pass_visits_every_sample_once_and_the_next_in_another_order(plain: Path) -> None:
    keys = [key for batch in take(stream(plain), 12) for key in batch.keys]
    assert len(set(keys[:28])) >= 24 - 7  # blocks of seven reach over the end of a pass
    counts = Counter(key for batch in take(stream(plain, shuffle_block=6), 12) for key in batch.keys)
    assert set(counts.values()) == {2}
    assert keys[:24] != keys[24:]


def test_shards_come_in_another_order_in_every_pass(plain: Path) -> None:
    batches = take(stream(plain, shuffle_block=6, batch_size=6), 20)
    shards = [batch.keys[0][:3] for batch in batches]
    passes = [tuple(shards[start : start + 4]) for start in range(0, 20, 4)]
    assert all(set(shards) == {"000", "001", "002", "003"} for shards in passes)
    assert len(set(passes)) > 2


def test_processes_and_workers_see_different_samples_and_together_all(plain: Path) -> None:
    seen = [
        {key for batch in take(stream(plain, rank=rank, world_size=2, shuffle_block=6, batch_size=3), 4, num_workers=2)
         for key in batch.keys}
        for rank in (0, 1)
    ]  # fmt: skip
    assert not seen[0] & seen[1]
    assert len(seen[0] | seen[1]) == 24


def test_ranks_resume_by_themselves(plain: Path) -> None:
    for rank in (0, 1):
        whole = take(stream(plain, rank=rank, world_size=2), 6)
        resumed = stream(plain, rank=rank, world_size=2, positions=[whole[2].position], first_batch=3)
        for found, expected in zip(take(resumed, 3), whole[3:], strict=True):
            assert_same(found, expected)


def test_the_seed_changes_the_order(plain: Path) -> None:
    assert take(stream(plain), 1)[0].keys != take(stream(plain, seed=4), 1)[0].keys


def test_plain_batches_hold_crops_and_captions(plain: Path) -> None:
    for batch in take(stream(plain), 3):
        assert batch.images.shape == (4, 3, 16, 16)
        assert batch.images.dtype == torch.uint8
        assert batch.texts.shape == (4, 40)
        assert batch.teacher_images is batch.synthetic_texts is None
        for key, tokens in zip(batch.keys, batch.texts, strict=True):
            assert text_of(tokens) == f"picture {int(key[:3]) * 6 + int(key[3:])}"


def test_reinforced_batches_hold_rows_that_belong_together(reinforced: Path) -> None:
    by_key = {s.key: s.members for shard in list_shards(reinforced, "train") for s in read_samples(shard)}
    augmentations, captions = set(), set()
    for batch in take(stream(reinforced, use_reinforcement=True), 12):
        assert batch.teacher_images is not None
        assert batch.teacher_texts is not None
        assert batch.teacher_synthetic_texts is not None
        assert batch.synthetic_texts is not None
        assert batch.teacher_images.shape == (4, WIDTH)
        assert batch.teacher_images.dtype == torch.float32
        for row, key in enumerate(batch.keys):
            number = int(key[:3]) * 6 + int(key[3:])
            a = int(batch.teacher_images[row, 0]) - 10 * number
            synthetic = -int(batch.teacher_synthetic_texts[row, 0]) - 10 * number
            assert float(batch.teacher_texts[row, 0]) == -10 * number  # row 0: the original caption
            assert text_of(batch.texts[row]) == f"picture {number}"
            assert text_of(batch.synthetic_texts[row]) == f"synthetic {number} {synthetic - 1}"
            reinforcement = read_reinforcement(by_key[key])
            assert reinforcement is not None
            augmentation = reinforcement.augmentations[a]
            pil = Image.open(io.BytesIO(by_key[key]["jpg"]))
            pil = F.resized_crop(pil, *augmentation.crop, [16, 16], InterpolationMode.BICUBIC)
            for name, magnitude in augmentation.operations:
                pil = _apply_op(pil, name, magnitude or 0.0, interpolation=InterpolationMode.NEAREST, fill=None)
            np.testing.assert_array_equal(batch.images[row].permute(1, 2, 0).numpy(), np.asarray(pil))
            augmentations.add(a)
            captions.add(synthetic)
    assert augmentations == {0, 1, 2, 3}
    assert captions == {1, 2}


def _bad(number: int, **changes: bytes | None) -> dict[str, bytes]:
    members: dict[str, bytes | None] = {
        **reinforced_members(number),
        **{k.replace("_", "."): v for k, v in changes.items()},
    }
    return {suffix: data for suffix, data in members.items() if data is not None}


BAD = {
    "members": [_bad(0, npz=None), _bad(0, jpg=None), _bad(0, txt=None)],
    "image": [_bad(0, jpg=jpeg(0)[:-60])],
    "caption": [_bad(0, txt=b"  "), _bad(0, txt=None, json=record(caption=7))],
    "reinforcement": [_bad(0, syn_json=b"{"), _bad(0, paug_json=b"{}"), _bad(0, npz=b"x"), _bad(0, syn_json=None),
                      _bad(0, txt=None, json=record(caption=["two", "captions"])), _bad(0, jpg=jpeg(0, 8, 8))],
}  # fmt: skip


def test_bad_samples_are_skipped_and_counted_by_kind_and_shard(tmp_path: Path) -> None:
    good = {f"good{i:02d}": reinforced_members(i) for i in range(12)}
    bad = {f"{kind}{i}": members for kind, samples in BAD.items() for i, members in enumerate(samples)}
    write_shard(tmp_path / "train" / "0.tar", good | bad)
    cut = write_shard(tmp_path / "train" / "1.tar", good)
    cut.write_bytes(cut.read_bytes()[:-15_000])
    settings: dict[str, Any] = {"use_reinforcement": True, "max_bad_share": 1.0, "shuffle_block": 6, "batch_size": 2}
    batches = take(stream(tmp_path, **settings), 30)
    last = next(b for b in batches if sum(b.position["bad"].values()) >= 13 and b.position["draw"] >= 2).position
    assert last["bad"] == {kind: len(samples) for kind, samples in BAD.items()} | {"shard": 1}
    assert last["bad_by_shard"] == {str(tmp_path / "train" / "0.tar"): 12, str(cut): 1}
    assert all(key.startswith("good") for batch in batches for key in batch.keys)
    resumed = stream(tmp_path, positions=[batches[4].position], first_batch=5, **settings)
    for found, expected in zip(take(resumed, 25), batches[5:], strict=True):
        assert_same(found, expected)
    summary = summarise_bad([last, None, last])
    assert "skipped 26 of " in summary
    assert "12 reinforcement" in summary
    assert f"24 {tmp_path / 'train' / '0.tar'}" in summary
    assert summarise_bad([batches[0].position | {"bad": {}, "bad_by_shard": {}}]) == ""


def _damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Truncate data, overwrite parts of it, or insert or remove a piece."""
    start, stop = sorted(int(i) for i in rng.integers(len(data) + 1, size=2))
    noise = rng.bytes(int(rng.integers(1, 20)))
    return (data[:start], data[:start] + noise + data[start + len(noise) :], data[:start] + noise + data[start:],
            data[:start] + data[stop:])[rng.integers(4)]  # fmt: skip


def test_damaged_samples_are_bad_or_read_as_a_strict_decoder_reads_them(tmp_path: Path) -> None:
    rng, loader = np.random.default_rng(0), stream(write_shards(tmp_path, 1), use_reinforcement=True)
    whole = reinforced_members(1)
    whole["txt"] = "\u4e00 caf\u00e9 \u2014 t\u00fcr".encode()
    bad = Counter[str]()
    for number in range(300):
        suffix = list(whole)[number % len(whole)]
        members = whole | {suffix: _damaged(whole[suffix], rng)}
        try:
            visit = loader._prepare(Sample("shard", "key", members), rng, WIDTH)
        except BadSample as error:
            bad[error.kind] += 1
            continue
        assert visit.caption == codecs.decode(members["txt"], "utf-8", "strict")
        assert visit.caption.strip()
        assert "\0" not in visit.caption
        assert visit.synthetic in json.loads(members["syn.json"].decode())["syn_text"]
        assert visit.rows is not None
        assert all(torch.isfinite(row).all() for row in visit.rows)
    assert set(bad) == {"caption", "image", "reinforcement"}
    assert bad.total() > 150
    for entry in ("[" * 50_000, "[[0, 0, 9e999, 3], []]", f"[[0, 0, 9, 9], [[4, {'9' * 400}]]]"):
        entries = record(param_aug=f"[{', '.join([entry] * 4)}]")
        with pytest.raises(BadSample) as caught:
            loader._prepare(Sample("shard", "key", whole | {"paug.json": entries}), rng, WIDTH)
        assert caught.value.kind == "reinforcement"


@pytest.mark.parametrize("num_workers", [0, 1])
def test_too_many_bad_samples_end_the_stream_in_one_line(tmp_path: Path, num_workers: int) -> None:
    samples = {f"{i:03d}": plain_members(i) for i in range(50)} | {"x": {"jpg": jpeg(0)[:90], "txt": b"x"}}
    write_shard(tmp_path / "train" / "0.tar", samples)
    with pytest.raises(StreamError) as caught:
        take(stream(tmp_path), 60, num_workers)
    message = str(caught.value)
    assert message.startswith("data: found ")
    assert "bad samples in" in message
    assert "image), expected at most 1.0%; worst shard: " in message
    assert "sample x: image: cannot be decoded" in message
    assert "\n" not in message
    assert len(take(stream(tmp_path, max_bad_share=0.03), 60)) == 60


def test_a_stray_bad_sample_at_the_beginning_ends_nothing(tmp_path: Path) -> None:
    bad = {"jpg": jpeg(0)[:90], "txt": b"x"}
    samples = {"000": bad} | {f"{i:03d}": plain_members(i) for i in range(1, 120)}
    write_shard(tmp_path / "train" / "0.tar", samples)
    batches = take(stream(tmp_path, shuffle_block=1, batch_size=20), 5)
    assert batches[0].position["bad"] == {"image": 1}


def test_only_bad_shards_end_the_stream_instead_of_turning_for_ever(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "0.tar").write_bytes(b"not a tar")
    with pytest.raises(StreamError, match="found 1 bad samples in 1"):
        take(stream(tmp_path, shuffle_block=1), 1)


def test_embeddings_of_another_width_are_bad(reinforced: Path) -> None:
    with pytest.raises(StreamError, match=r"expected 1 \+ 2 rows of 24"):
        take(stream(reinforced, use_reinforcement=True, embedding_width=24), 30)


def test_reinforcement_is_ignored_when_it_is_not_wanted(reinforced: Path) -> None:
    (batch,) = take(stream(reinforced), 1)
    assert batch.teacher_images is None
    assert all(text_of(tokens).startswith("synthetic") for tokens in batch.texts)


def test_too_few_shards_for_the_workers_is_an_error(plain: Path) -> None:
    with pytest.raises(StreamError, match="found 4, expected at least one for each of 5 processes x 1 workers"):
        take(stream(plain, world_size=5), 1)


def test_resuming_with_another_number_of_workers_is_an_error(plain: Path) -> None:
    with pytest.raises(StreamError, match="--num-workers: found 1, expected 2"):
        take(stream(plain, positions=[None, None], first_batch=2), 1)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -1.0]])
def test_weights_must_be_positive_and_one_for_each_source(plain: Path, weights: list[float]) -> None:
    with pytest.raises(ValueError, match="--data-weights: found"):
        stream(plain, plain, weights=weights)


def test_positions_survive_a_checkpoint(plain: Path, tmp_path: Path) -> None:
    position = take(stream(plain), 3)[-1].position
    torch.save({"positions": [[position]]}, tmp_path / "state.pt")
    assert torch.load(tmp_path / "state.pt", weights_only=True)["positions"] == [[position]]
