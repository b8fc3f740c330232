import io
import tarfile
from pathlib import Path

import fsspec
import pytest

from mobileclip_dense.data.captioned.shards import list_shards, read_samples, split_name
from tests.data.shards import plain_members, write_shard, write_shards


def test_a_folder_lists_its_split_or_for_training_its_own_tars(tmp_path: Path) -> None:
    write_shards(tmp_path / "split", 2)
    assert [Path(shard).name for shard in list_shards(tmp_path / "split", "train")] == ["00000.tar", "00001.tar"]
    assert [Path(shard).parent.name for shard in list_shards(tmp_path / "split/train", "train")] == ["train", "train"]
    (tmp_path / "split/train/.00002.partial-7.tar").touch()  # of a join that was killed
    assert len(list_shards(tmp_path / "split", "train")) == 2
    with pytest.raises(FileNotFoundError, match=r"val: shards: found no \*\.tar"):
        list_shards(tmp_path / "split", "val")


def test_brace_ranges_expand_and_missing_files_are_named(tmp_path: Path) -> None:
    train = write_shards(tmp_path, 3) / "train"
    assert list_shards(f"{train}/{{00000..00002}}.tar", "train") == list_shards(tmp_path, "train")
    assert list_shards("https://host/{0..2}.tar", "train") == [f"https://host/{i}.tar" for i in range(3)]
    with pytest.raises(FileNotFoundError, match=r"00003\.tar: shards: no such file \(1 of 4 are missing\)"):
        list_shards(f"{train}/{{00000..00003}}.tar", "train")
    with pytest.raises(FileNotFoundError, match="has no val split"):
        list_shards(f"{train}/{{00000..00002}}.tar", "val")


def test_an_unknown_scheme_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"no-such://x/{0\.\.2}\.tar: shards: Protocol not known: no-such"):
        list_shards("no-such://x/{0..2}.tar", "train")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no-such/train: shards: no such folder; expected a folder of webdata"):
        list_shards(tmp_path / "no-such", "train")


def test_names_split_at_the_first_dot_of_the_file_name() -> None:
    assert split_name("a.b/00.syn.JSON") == ("a.b/00", "syn.json")
    assert split_name("00.jpg") == ("00", "jpg")


@pytest.mark.parametrize("scheme", ["", "file://", "pipe:cat ", "memory://"])
def test_samples_are_read_from_any_place_of_any_kind_of_source(tmp_path: Path, scheme: str) -> None:
    path = Path(list_shards(write_shards(tmp_path, 1), "train")[0])
    fsspec.filesystem("memory").pipe(str(path), path.read_bytes())
    for start in range(8):
        found = list(read_samples(f"{scheme}{path}", start))
        assert [sample.key for sample in found] == [f"000{i:03d}" for i in range(start, 6)]
        assert [sample.members for sample in found] == [plain_members(i) for i in range(start, 6)]
        assert all(sample.fault is None for sample in found)


def test_members_with_long_names_and_folders_are_read(tmp_path: Path) -> None:
    key = "folder/" + "x" * 150
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        with tarfile.open(tmp_path / "0.tar", "w", format=form) as tar:
            folder = tarfile.TarInfo("folder")
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)
            info = tarfile.TarInfo(f"{key}.txt")
            info.size = 2
            tar.addfile(info, io.BytesIO(b"hi"))
        (sample,) = read_samples(str(tmp_path / "0.tar"))
        assert (sample.key, sample.members) == (key, {"txt": b"hi"})


def test_what_a_mac_leaves_in_archives_is_no_member_and_splits_no_sample(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name in ("__MACOSX/._a.jpg", "./._a.jpg", "./a.jpg", "./._a.txt", "./a.txt", ".DS_Store",
                     ".ipynb_checkpoints/b.jpg", "./b.jpg", "./b.txt"):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.size = 2
            tar.addfile(info, io.BytesIO(b"hi"))
    found = {sample.key: set(sample.members) for sample in read_samples(str(tmp_path / "0.tar"))}
    assert found == {"./a": {"jpg", "txt"}, "./b": {"jpg", "txt"}}


@pytest.mark.parametrize(("through", "step"), [("", 512), ("", 700), ("pipe:cat ", 5000)])
def test_a_truncated_shard_gives_what_is_whole_and_then_a_fault(tmp_path: Path, through: str, step: int) -> None:
    whole = Path(list_shards(write_shards(tmp_path, 1), "train")[0]).read_bytes()
    cut = tmp_path / "cut.tar"
    counts = []
    for size in range(0, len(whole.rstrip(b"\0")), step):
        cut.write_bytes(whole[:size])
        *samples, last = read_samples(f"{through}{cut}")
        assert [sample.members for sample in samples] == [plain_members(i) for i in range(len(samples))]
        assert last.fault
        assert [sample.fault for sample in read_samples(f"{through}{cut}", len(samples))] == [last.fault]
        counts.append(len(samples))
    assert counts[0] == 0
    assert counts == sorted(counts)
    assert counts[-1] >= 3


@pytest.mark.parametrize("through", ["", "pipe:cat "])
def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path, through: str) -> None:
    path = Path(list_shards(write_shards(tmp_path, 1), "train")[0])
    whole = path.read_bytes()
    start = whole.index(b"000003.jpg")
    path.write_bytes(whole[:start] + b"?" * 512 + whole[start + 512 :])
    *samples, last = read_samples(f"{through}{path}")
    assert [sample.key for sample in samples] == ["000000", "000001"]  # the third may lack members
    assert f"at byte {start}" in (last.fault or "")


@pytest.mark.parametrize("shard", ["no-such.tar", "pipe:exit 3", "memory://no-such.tar", "no-such-scheme://x.tar"])
def test_a_shard_that_cannot_be_opened_is_a_fault(shard: str) -> None:
    (sample,) = read_samples(shard)
    assert sample.fault


def test_an_empty_shard_is_a_fault(tmp_path: Path) -> None:
    (sample,) = read_samples(str(write_shard(tmp_path / "0.tar", {})))
    assert sample.fault == "no sample in it"
