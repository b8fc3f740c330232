import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mobileclip_dense import __main__ as program
from mobileclip_dense.config import JoinConfig
from mobileclip_dense.data.captioned import join as join_module
from mobileclip_dense.data.captioned.join import join
from mobileclip_dense.data.captioned.shards import list_shards, read_samples
from mobileclip_dense.data.captioned.stream import CaptionStream
from tests.data.shards import plain_members, read_reinforcement, record, reinforced_members, tokenize, write_shard

MEMBERS = ("syn.json", "paug.json", "npz")


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Images 0..11 in two shards, number 5 without a uid. Reinforcements of all images except 3 and 4, in three shards
    and in another order, and two for unknown images."""
    for shard in range(2):
        numbers = range(shard * 6, shard * 6 + 6)
        uids = {number: record(uid=f"uid{number}") if number != 5 else record(sha256="x") for number in numbers}
        samples = {f"{number:09d}": plain_members(number) | {"json": uids[number]} for number in numbers}
        write_shard(tmp_path / "images" / f"{shard:05d}.tar", samples)
    numbers = [11, 0, 5, 20, 7, 2, 9, 1, 21, 10, 6, 8]
    for shard in range(3):
        write_shard(tmp_path / "dr" / f"{shard:08d}.tar", {
            f"uid{number}": {"url.txt": b"u", "json": record(uid=f"uid{number}")}
            | {suffix: reinforced_members(number)[suffix] for suffix in MEMBERS}
            for number in numbers[shard * 4 : shard * 4 + 4]
        })  # fmt: skip
    return tmp_path


def config(folder: Path, **changes: Any) -> JoinConfig:
    settings: dict[str, Any] = {
        "images": str(folder / "images"), "reinforcements": str(folder / "dr"), "out": folder / "out", **changes
    }  # fmt: skip
    return JoinConfig(**settings)


def test_uids_are_read_with_a_byte_order_mark_and_those_that_are_no_text_are_none(tmp_path: Path) -> None:
    reinforcement = {suffix: reinforced_members(1)[suffix] for suffix in MEMBERS}
    write_shard(tmp_path / "dr" / "0.tar", {"uid1": reinforcement, "uid\udcff": reinforcement})
    records = {"a": b"\xef\xbb\xbf" + record(uid="uid1"), "b": record(uid="uid\udcff"), "c": b"[" * 100_000}
    write_shard(tmp_path / "images" / "0.tar", {key: plain_members(1) | {"json": r} for key, r in records.items()})
    result = join(config(tmp_path))
    assert (result["matched"], result["without_uid"], result["reinforced_samples"]) == (1, 2, 1)


def test_every_image_gets_the_reinforcement_of_its_uid(
    sources: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--images", str(sources / "images"), "--reinforcements", str(sources / "dr/{00000000..00000002}.tar")]
    monkeypatch.setattr(sys, "argv", ["mobileclip-dense", "join", *arguments, "--out", str(sources / "out")])
    program.main()
    assert "9  images joined with their reinforcement" in capsys.readouterr().out
    result = json.loads((sources / "out" / "join.json").read_text())
    assert (result["matched"], result["missing"], result["without_uid"]) == (9, 2, 1)
    assert result["reinforced_samples"] == 12
    assert result["unreadable_reinforcement_shards"] == {}
    samples = [sample for shard in list_shards(sources / "out", "train") for sample in read_samples(shard)]
    assert [int(sample.key) for sample in samples] == [0, 1, 2, 6, 7, 8, 9, 10, 11]
    for sample in samples:
        number = int(sample.key)
        expected = plain_members(number) | {"json": record(uid=f"uid{number}")}
        assert sample.members == expected | {suffix: reinforced_members(number)[suffix] for suffix in MEMBERS}
        found = read_reinforcement(sample.members)
        assert found is not None
        assert found.image_embeddings[0, 0] == 10 * number


def test_joined_shards_train_with_reinforcement(sources: Path) -> None:
    join(config(sources))
    shards = list_shards(sources / "out", "train")
    batch = next(iter(CaptionStream([shards], tokenize, image_size_px=32, batch_size=9, use_reinforcement=True,
                                    crop_scale_min=0.4, shuffle_block=1000, max_bad_share=0.01)))  # fmt: skip
    assert batch.teacher_texts is not None
    assert torch.equal(batch.teacher_texts[:, 0], torch.tensor([-10.0 * int(key) for key in batch.keys]))


@pytest.mark.parametrize("stage", ["_index_shard", "_join_shard"])
def test_an_interrupted_join_goes_on_and_ends_the_same(
    sources: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    join(config(sources, out=sources / "whole"))
    real, calls = getattr(join_module, stage), []

    def interrupted(index: Any, shard: str, *rest: Any) -> None:
        calls.append(shard)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(index, shard, *rest)

    monkeypatch.setattr(join_module, stage, interrupted)
    with pytest.raises(KeyboardInterrupt):
        join(config(sources))
    assert not (sources / "out" / "join.json").exists()
    monkeypatch.setattr(join_module, stage, real)
    read = []

    def counted(shard: str, start: int = 0) -> Iterator[Any]:
        read.append(shard)
        return read_samples(shard, start)

    monkeypatch.setattr(join_module, "read_samples", counted)
    join(config(sources))
    assert len(read) == (2 if stage == "_index_shard" else 1)  # what was finished is not read again
    for name in ("00000.tar", "00001.tar", "join.json"):
        assert (sources / "out" / name).read_bytes() == (sources / "whole" / name).read_bytes()


def test_a_join_interrupted_within_a_shard_leaves_no_half_of_it(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(index: Any, uid: str) -> dict[str, bytes]:
        if uid == "uid2":
            raise KeyboardInterrupt
        return {}

    monkeypatch.setattr(join_module, "_reinforcement", broken)
    with pytest.raises(KeyboardInterrupt):
        join(config(sources))
    assert [path.name for path in (sources / "out").iterdir()] == ["index.sqlite"]


def test_a_shard_without_a_match_is_not_written(sources: Path) -> None:
    write_shard(sources / "images" / "00002.tar", {"x": plain_members(0) | {"json": record(uid="other")}})
    assert join(config(sources))["missing"] == 3
    assert len(list_shards(sources / "out", "train")) == 2


@pytest.mark.parametrize("tenths", [3, 4, 5, 6])
def test_shards_cut_short_give_what_is_whole_and_are_named(sources: Path, tenths: int) -> None:
    for path in (sources / "images" / "00001.tar", sources / "dr" / "00000001.tar"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size * tenths // 10])
    result = join(config(sources))
    assert result["unreadable_image_shards"] == 1
    assert list(result["unreadable_reinforcement_shards"]) == [str(sources / "dr" / "00000001.tar")]
    assert 0 < result["matched"] < 9
    samples = [sample for shard in list_shards(sources / "out", "train") for sample in read_samples(shard)]
    assert all(sample.fault is None and read_reinforcement(sample.members) for sample in samples)


def test_a_complete_or_different_join_is_not_touched(sources: Path) -> None:
    join(config(sources))
    with pytest.raises(FileExistsError, match="already complete"):
        join(config(sources))
    (sources / "out" / "join.json").unlink()
    with pytest.raises(FileExistsError, match=r"begun with --images .*images --reinforcements .*dr; pass the same"):
        join(config(sources, images=str(sources / "images" / "00000.tar")))
    assert join(config(sources, images=str(sources / "images" / "00000.tar"), force=True))["matched"] == 3


def test_nothing_in_common_is_an_error_that_counts(sources: Path) -> None:
    write_shard(sources / "other" / "0.tar", {"a": plain_members(0), "b": plain_members(1) | {"json": record(uid="b")}})
    with pytest.raises(ValueError, match=r"no image with the uid .*without a uid in json: 1, with an unknown uid: 1"):
        join(config(sources, images=str(sources / "other")))


def test_sources_are_never_overwritten(sources: Path) -> None:
    before = {path: path.read_bytes() for path in sources.rglob("*.tar")}
    for changes in (
        {"out": sources / "images"},
        {"out": sources, "force": True},
        {"out": sources / "dr", "force": True},
    ):
        with pytest.raises(ValueError, match=r"--out: found .*\.tar in it"):
            join(config(sources, **changes))
    (sources / "taken").mkdir()
    (sources / "taken" / "file").touch()
    with pytest.raises(FileExistsError, match="found a folder that join did not write"):
        join(config(sources, out=sources / "taken"))
    assert {path: path.read_bytes() for path in sources.rglob("*.tar")} == before


def test_image_shards_of_the_same_name_and_piped_reinforcements_are_refused(sources: Path) -> None:
    write_shard(sources / "again" / "00000.tar", {"x": plain_members(0)})
    both = f"{sources}/{{images,again}}/00000.tar"
    with pytest.raises(ValueError, match=r"--images: found 00000\.tar twice"):
        join(config(sources, images=both))
    with pytest.raises(ValueError, match=r"--reinforcements: found pipe:cat x\.tar, expected files or URLs"):
        join(config(sources, reinforcements="pipe:cat x.tar"))


def test_a_damaged_index_or_changed_shard_is_an_error_in_words(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = join_module._join_shard
    monkeypatch.setattr(join_module, "_join_shard", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        join(config(sources))
    monkeypatch.setattr(join_module, "_join_shard", real)
    for path in (sources / "dr").iterdir():
        path.write_bytes(b"x" * 3000)
    with pytest.raises(ValueError, match=r"uid0: cannot be read .* the shard has changed"):
        join(config(sources))
    (sources / "out" / "index.sqlite").write_bytes(b"hello" * 200)
    with pytest.raises(OSError, match=r"index\.sqlite: .*not a database"):
        join(config(sources))
