import ctypes
import dataclasses
import filecmp
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv
from torchvision.transforms.autoaugment import _apply_op

from mobileclip_dense.config import ReinforceConfig
from mobileclip_dense.data.captioned.augmentation import OPERATIONS
from mobileclip_dense.data.captioned.reinforced import SIDECAR
from mobileclip_dense.data.captioned.shards import list_shards, read_samples
from mobileclip_dense.pretraining import reinforce as reinforce_module
from mobileclip_dense.pretraining.ray_engine import _reinforce
from mobileclip_dense.pretraining.reinforce import open_folder, reinforce
from mobileclip_dense.pretraining.reinforced_shard import Counts, Job
from tests.conftest import REPOSITORY
from tests.data.shards import jpeg, read_reinforcement, record, write_shard
from tests.pretraining.conftest import VIT_MEAN, VIT_STD

NUM_TRAIN_SHARDS, NUM_IMAGES, NUM_VIEWS = 3, 7, 3


def plain_sample(number: int, num_synthetic: int = 3) -> dict[str, bytes]:
    return {
        "jpg": jpeg(number, 40 + number, 90 - number),
        "txt": f"picture number {number}".encode(),
        "json": record(uid=str(number)),
        "syn.json": record(syn_text=[f"view {j} of picture {number}" for j in range(num_synthetic)]),
    }


def write_plain(folder: Path, num_images: int = NUM_IMAGES) -> Path:
    """Three shards to reinforce and one to copy."""
    for split, number in [*(("train", n) for n in range(NUM_TRAIN_SHARDS)), ("val", 9)]:
        samples = {f"{number}{i:04d}": plain_sample(number * 8 + i % 8) for i in range(num_images)}
        write_shard(folder / split / f"{number:05d}.tar", samples)
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plain(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def config(plain: Path, vit_teacher: str, nano_teacher: str) -> ReinforceConfig:
    return ReinforceConfig(
        data=plain, out=plain / "both", teachers=(nano_teacher, vit_teacher), num_augmentations=NUM_VIEWS,
        num_captions=2, batch_size=8,
    )  # fmt: skip


@pytest.fixture(scope="module")
def small(config: ReinforceConfig, vit_teacher: str) -> ReinforceConfig:
    """One teacher, the smaller."""
    return dataclasses.replace(config, teachers=(vit_teacher,), out=config.data / "small")


@pytest.fixture(scope="module")
def both(config: ReinforceConfig) -> Path:
    """Reinforced by both teachers, in this process."""
    reinforce(config)
    return config.out


@pytest.fixture(scope="module")
def alone(small: ReinforceConfig) -> Path:
    """Reinforced by the smaller teacher, in this process."""
    reinforce(small)
    return small.out


def samples_of(shard: Path) -> dict[str, dict[str, bytes]]:
    return {sample.key: sample.members for sample in read_samples(str(shard))}


def assert_same_folder(found: Path, expected: Path) -> None:
    """Both folders have the same files with the same bytes, including hidden files."""
    names = [
        sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) for folder in (found, expected)
    ]
    assert names[0] == names[1]
    assert len(names[0]) == NUM_TRAIN_SHARDS + 2
    assert filecmp.cmpfiles(found, expected, names[0], shallow=False) == (names[0], [], [])


def view_by_hand(data: bytes, entry: list, size_px: int) -> Image.Image:
    """The stored augmentation, applied by torchvision."""
    (top, left, height, width), operations = entry
    image = tv.resized_crop(Image.open(io.BytesIO(data)), top, left, height, width, [size_px, size_px],
                            InterpolationMode.BICUBIC)  # fmt: skip
    for number, magnitude in operations:
        image = _apply_op(image, OPERATIONS[number], magnitude, InterpolationMode.NEAREST, [0.0, 0.0, 0.0])
    return image


def test_stored_embeddings_are_those_of_the_stored_augmentations_by_each_teachers_own_preprocessing(
    both: Path, nano_teacher: str, vit_teacher: str
) -> None:
    """Embeddings recomputed from the shard, with torchvision and open_clip only."""
    nano, vit = open_clip.create_model(*nano_teacher.split(":")), open_clip.create_model(f"local-dir:{vit_teacher}")
    models = [(nano, 128, (0.0,) * 3, (1.0,) * 3, 48), (vit, 48, VIT_MEAN, VIT_STD, 16)]
    members = samples_of(both / "train" / "00001.tar")["10002"]
    stored = read_reinforcement(members)
    assert stored is not None
    assert stored.image_embeddings.dtype == torch.bfloat16
    entries = json.loads(json.loads(members["paug.json"])["param_aug"])
    assert len(entries) == NUM_VIEWS
    captions = [members["txt"].decode(), *json.loads(members["syn.json"])["syn_text"]]
    assert len(captions) == 3
    start = 0
    for model, size_px, mean, std, context_length in models:
        views = [view_by_hand(members["jpg"], entry, size_px) for entry in entries]
        pixels = torch.stack([tv.normalize(tv.to_tensor(view), mean, std) for view in views])
        tokens = open_clip.get_tokenizer("ViT-B-32", context_length=context_length)(captions)
        with torch.no_grad():
            images = model.eval().encode_image(pixels, normalize=True)
            texts = model.encode_text(tokens, normalize=True)
        part = slice(start, start + images.shape[1])
        # bfloat16 keeps 8 bits: half a unit in the last place is 1/512 of the value.
        torch.testing.assert_close(stored.image_embeddings[:, part].float(), images, rtol=1 / 256, atol=1e-5)
        torch.testing.assert_close(stored.text_embeddings[:, part].float(), texts, rtol=1 / 256, atol=1e-5)
        assert (images[0] - images[1]).abs().max() > 0.02  # otherwise the comparison would be trivial
        start += images.shape[1]
    assert stored.image_embeddings.shape == (NUM_VIEWS, start)


def test_a_reinforced_folder_keeps_every_sample_and_says_what_made_it(
    both: Path, plain: Path, nano_teacher: str, vit_teacher: str
) -> None:
    for name in (f"{n:05d}.tar" for n in range(NUM_TRAIN_SHARDS)):
        before, after = samples_of(plain / "train" / name), samples_of(both / "train" / name)
        assert list(before) == list(after)
        for key in before:
            assert set(after[key]) == {"jpg", "txt", "json", "syn.json", "paug.json", "pth.gz"}
            assert all(after[key][suffix] == before[key][suffix] for suffix in ("jpg", "txt", "json"))
    assert filecmp.cmp(plain / "val" / "00009.tar", both / "val" / "00009.tar", shallow=False)
    assert len(list_shards(both, "train")) == NUM_TRAIN_SHARDS
    sidecar = json.loads((both / SIDECAR).read_text())
    assert [teacher["name"] for teacher in sidecar["teachers"]] == [nano_teacher, vit_teacher]
    assert [(t["dim"], t["image_size_px"]) for t in sidecar["teachers"]] == [(128, 128), (24, 48)]
    assert all(t["temperature"] == pytest.approx(1 / 0.07) for t in sidecar["teachers"])
    assert (sidecar["num_augmentations"], sidecar["num_captions"], sidecar["storage"]) == (NUM_VIEWS, 2, "bf16")


def test_augmentations_differ_by_sample_shard_and_seed(small: ReinforceConfig, tmp_path: Path) -> None:
    for shard in "01":  # the same image everywhere
        write_shard(tmp_path / "data" / "train" / f"{shard}.tar", {key: plain_sample(1) for key in "ab"})
    for seed in (0, 1):
        reinforce(dataclasses.replace(small, data=tmp_path / "data", out=tmp_path / f"{seed}", seed=seed))
    drawn = {members["paug.json"] for seed in "01" for shard in "01"
             for members in samples_of(tmp_path / seed / "train" / f"{shard}.tar").values()}  # fmt: skip
    assert len(drawn) == 8


def test_loader_processes_change_no_byte(alone: Path, small: ReinforceConfig, tmp_path: Path) -> None:
    reinforce(dataclasses.replace(small, out=tmp_path / "out", num_workers=2))
    assert_same_folder(tmp_path / "out", alone)


def test_captions_of_a_file_in_half_precision(small: ReinforceConfig, tmp_path: Path) -> None:
    lines = [json.dumps({"key": f"{n}{i:04d}", "syn_text": [f"caption {i}", " ", "second", "third"]}) + "\n"
             for n in range(NUM_TRAIN_SHARDS) for i in range(1, NUM_IMAGES)]  # fmt: skip
    (tmp_path / "c.jsonl").write_text("".join(lines))
    counts = reinforce(
        dataclasses.replace(small, out=tmp_path / "out", captions=str(tmp_path / "c.jsonl"), storage="fp16")
    )
    assert counts.left_out == {"no synthetic caption": NUM_TRAIN_SHARDS}  # key 0 of each shard is not in the file
    members = samples_of(tmp_path / "out" / "train" / "00000.tar")["00003"]
    assert json.loads(members["syn.json"])["syn_text"] == ["caption 3", "second"]
    with np.load(io.BytesIO(members["npz"])) as arrays:
        assert (arrays["image_emb"].dtype, arrays["text_emb"].shape) == (np.float16, (3, 24))


def test_captions_of_a_coca_model_are_its_own_for_each_image(small: ReinforceConfig, coca: str, tmp_path: Path) -> None:
    write_shard(tmp_path / "data" / "train" / "0.tar", {f"{i}": plain_sample(i) for i in range(3)})
    reinforce(dataclasses.replace(small, data=tmp_path / "data", out=tmp_path / "out", captions=coca))
    members = samples_of(tmp_path / "out" / "train" / "0.tar").values()
    written = [caption for sample in members for caption in json.loads(sample["syn.json"])["syn_text"]]
    assert len(set(written)) == 3 * 2
    assert not any("view" in caption for caption in written)


def test_bad_samples_and_shards_are_left_out_and_counted(
    small: ReinforceConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = plain_sample(1)
    samples = {
        "a": good, "b": good | {"jpg": good["jpg"][:99]}, "c": good | {"txt": b" "}, "d": {"txt": b"no image"},
        "e": good | {"syn.json": b"{"}, "f": good | {"syn.json": record(syn_text=[""])}, "g": plain_sample(2),
    }  # fmt: skip
    write_shard(tmp_path / "data" / "train" / "0.tar", samples)
    write_shard(tmp_path / "data" / "train" / "1.tar", {f"{i}": good for i in range(9)})
    whole = tmp_path / "data" / "train" / "1.tar"
    whole.write_bytes(whole.read_bytes()[:9000])
    write_shard(tmp_path / "data" / "train" / "2.tar", {"a": good})
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=r"1 shards cannot be read to their end[^$]*1\.tar: after sample"):
        reinforce(dataclasses.replace(small, data=tmp_path / "data", out=out))
    assert sorted(path.name for path in (out / "train").iterdir()) == ["0.tar", "2.tar"]
    assert list(samples_of(out / "train" / "0.tar")) == ["a", "g"]
    table = dict(line.rsplit(None, 1) for line in capsys.readouterr().out.splitlines()[1:])
    assert {name.strip(): int(n) for name, n in table.items()} == {
        "shards reinforced": 2, "shards already complete": 0, "images": 3, "views": 9,
        "left out: caption": 1, "left out: image": 1, "left out: members": 1, "left out: no synthetic caption": 1,
        "left out: syn.json": 1,
    }  # fmt: skip


def test_a_shard_without_a_good_sample_is_an_error_and_leaves_no_file(small: ReinforceConfig, tmp_path: Path) -> None:
    write_shard(tmp_path / "data" / "train" / "0.tar", {"a": plain_sample(1, num_synthetic=1) | {"jpg": b"x"}})
    with pytest.raises(ValueError, match=r"0\.tar: found no sample that can be reinforced: 1 image"):
        reinforce(dataclasses.replace(small, data=tmp_path / "data", out=tmp_path / "out"))
    assert list((tmp_path / "out" / "train").iterdir()) == []
    uncaptioned = {suffix: data for suffix, data in plain_sample(1).items() if suffix != "syn.json"}
    write_shard(tmp_path / "web" / "train" / "0.tar", {"a": uncaptioned})
    with pytest.raises(ValueError, match="reinforced: 1 no synthetic caption; set --captions to a file or a model"):
        reinforce(dataclasses.replace(small, data=tmp_path / "web", out=tmp_path / "other"))


def test_other_settings_are_refused_and_the_same_do_nothing_again(
    alone: Path, small: ReinforceConfig, vit_teacher: str, tmp_path: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in alone.rglob("*")}
    for name, value in (("seed", 1), ("num_augmentations", 4), ("storage", "fp16"), ("temperature", 100.0)):
        with pytest.raises(FileExistsError, match=f"other settings.*{'teachers' if name == 'temperature' else name}"):
            reinforce(dataclasses.replace(small, **{name: value}))
    moved = tmp_path / "moved"
    moved.symlink_to(vit_teacher)  # the same weights under another name
    assert reinforce(dataclasses.replace(small, teachers=(str(moved),), batch_size=5)).images == 0
    assert {path: path.stat().st_mtime_ns for path in alone.rglob("*")} == before
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(FileExistsError, match="not made by `reinforce`"):
        reinforce(dataclasses.replace(small, out=tmp_path))


def test_a_sample_whose_name_is_not_utf_8_is_reinforced(small: ReinforceConfig, tmp_path: Path) -> None:
    write_shard(tmp_path / "data" / "train" / "0.tar", {"caf\udce9": plain_sample(1)})
    assert reinforce(dataclasses.replace(small, data=tmp_path / "data", out=tmp_path / "out")).images == 1
    assert list(samples_of(tmp_path / "out" / "train" / "0.tar")) == ["caf\udce9"]


def test_a_first_try_that_made_nothing_leaves_the_folder_free(small: ReinforceConfig, tmp_path: Path) -> None:
    write_shard(tmp_path / "data" / "train" / "0.tar", {"a": plain_sample(1)})
    (tmp_path / "wrong.txt").write_text("b\ta thing\n")
    (tmp_path / "right.txt").write_text("a\ta thing\n")
    mine = dataclasses.replace(small, data=tmp_path / "data", out=tmp_path / "out")
    with pytest.raises(ValueError, match="1 no synthetic caption"):
        reinforce(dataclasses.replace(mine, captions=str(tmp_path / "wrong.txt")))
    assert reinforce(dataclasses.replace(mine, captions=str(tmp_path / "right.txt"))).images == 1
    assert json.loads((mine.out / SIDECAR).read_text())["captions"]["source"] == "right.txt"
    with pytest.raises(FileExistsError, match=r"other settings \(captions: .*pass --force"):
        reinforce(mine)


def test_force_replaces_what_this_command_made_and_nothing_else(small: ReinforceConfig, tmp_path: Path) -> None:
    write_shard(tmp_path / "data" / "train" / "0.tar", {"a": plain_sample(1)})
    mine = dataclasses.replace(small, data=tmp_path / "data", out=tmp_path / "out")
    reinforce(mine)
    (mine.out / "train" / "1.tar").write_bytes(b"of an earlier command")
    assert reinforce(dataclasses.replace(mine, seed=1, force=True)).images == 1
    assert json.loads((mine.out / SIDECAR).read_text())["seed"] == 1
    assert [path.name for path in (mine.out / "train").iterdir()] == ["0.tar"]
    (mine.out / "thesis.tex").write_text("precious")
    (tmp_path / "scenes" / "train").mkdir(parents=True)
    (tmp_path / "scenes" / "train" / "0.tar").write_bytes(b"shards of another kind")
    for out in (mine.out, tmp_path / "scenes", tmp_path / "data" / "train", tmp_path):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(FileExistsError, match=": is not replaced: "):
            reinforce(dataclasses.replace(mine, out=out, force=True))
        assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_another_process_fills_is_left_to_it(small: ReinforceConfig, tmp_path: Path) -> None:
    write_shard(tmp_path / "data" / "train" / "0.tar", {"a": plain_sample(1)})
    mine = dataclasses.replace(small, data=tmp_path / "data", out=tmp_path / "out")
    mine.out.mkdir()
    (mine.out / SIDECAR).write_text("{}")
    code = ("import sys, pathlib, mobileclip_dense.artifact.lock as lock\n"
            "with lock.locked_folder(pathlib.Path(sys.argv[1])):\n"
            "    print('locked', flush=True); sys.stdin.read()")  # fmt: skip
    command = [sys.executable, "-c", code, str(mine.out)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        for force in (False, True):
            with pytest.raises(FileExistsError, match=f"out: is being written by process {other.pid}"):
                reinforce(dataclasses.replace(mine, force=force))
        assert {path.name for path in mine.out.iterdir()} == {".lock", SIDECAR}
        other.communicate()
    assert reinforce(mine).images == 1


def test_nothing_is_deleted_before_teachers_and_captions_were_opened(
    small: ReinforceConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shard(tmp_path / "data" / "train" / "0.tar", {"a": plain_sample(1)})
    mine = dataclasses.replace(small, data=tmp_path / "data", out=tmp_path / "out")
    reinforce(mine)
    (tmp_path / "captions.txt").write_text("no tab in it")
    again = dataclasses.replace(mine, force=True)
    for changes in (dict(teachers=("no-such:teacher",)), dict(captions=str(tmp_path / "captions.txt"))):
        with pytest.raises(ValueError, match=r"no-such|captions"):
            reinforce(dataclasses.replace(again, **changes))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="--force: found several processes of torchrun"):
        reinforce(again)
    assert (mine.out / "train" / "0.tar").exists()


def test_processes_of_torchrun_share_the_shards(
    alone: Path, small: ReinforceConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = dataclasses.replace(small, out=tmp_path / "out")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(reinforce_module, "_TIMEOUT_S", 0.1)
    with pytest.raises(TimeoutError, match="waited"):
        reinforce(mine)  # only rank 0 may create the folder
    monkeypatch.setenv("RANK", "0")
    assert reinforce(mine).images == 2 * NUM_IMAGES
    monkeypatch.setenv("RANK", "1")
    assert reinforce(mine).images == NUM_IMAGES
    assert_same_folder(mine.out, alone)


def test_a_killed_command_goes_on_and_ends_with_the_same_bytes(small: ReinforceConfig, tmp_path: Path) -> None:
    data = write_plain(tmp_path / "data", num_images=60)
    killed = dataclasses.replace(small, data=data, out=tmp_path / "killed", num_augmentations=20)
    arguments = ["reinforce", "--data", data, "--out", killed.out, "--teachers", *killed.teachers, "--num-captions",
                 "2", "--num-augmentations", "20", "--batch-size", "8"]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "mobileclip_dense", *map(str, arguments)], cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for(lambda: list(killed.out.glob("train/.00001.partial-*.tar")), seconds=120)
    process.send_signal(signal.SIGKILL)
    process.wait()
    present = sorted(path.name for path in (killed.out / "train").iterdir())
    assert present[0].startswith(".00001.partial-")
    assert present[1:] == ["00000.tar"]
    counts = reinforce(killed)
    assert (counts.images, counts.begun_again) == (2 * 60, 1)
    whole = dataclasses.replace(killed, out=tmp_path / "whole")
    reinforce(whole)
    assert_same_folder(killed.out, whole.out)


def wait_for(condition, seconds: float) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


class Renames:
    """Records the files renamed in a folder, as reported by the kernel (inotify)."""

    def __init__(self, folder: Path):
        libc = ctypes.CDLL(None, use_errno=True)
        self._handle = libc.inotify_init1(os.O_NONBLOCK)
        assert self._handle >= 0
        assert libc.inotify_add_watch(self._handle, bytes(folder), 0x80) >= 0  # IN_MOVED_TO

    def read(self) -> list[str]:
        data, names = os.read(self._handle, 1 << 16), []
        while data:
            length = int.from_bytes(data[12:16], sys.byteorder)
            names.append(data[16 : 16 + length].rstrip(b"\0").decode())
            data = data[16 + length :]
        return sorted(names)


def test_on_ray_a_killed_worker_loses_nothing_and_nothing_is_done_twice(
    small: ReinforceConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = write_plain(tmp_path / "data", num_images=40)
    local = dataclasses.replace(small, data=data, out=tmp_path / "local", num_augmentations=20)
    reinforce(local)
    on_ray = dataclasses.replace(local, out=tmp_path / "ray", engine="ray", max_retries=1)
    open_folder(on_ray.out, json.loads((local.out / SIDECAR).read_text()), rank=0)
    (on_ray.out / "train").mkdir()
    renames, victims = Renames(on_ray.out / "train"), []

    def kill_one_worker() -> None:
        partials: list[Path] = []
        wait_for(lambda: partials.extend(on_ray.out.glob("train/.*.partial-*.tar")) or partials, seconds=120)
        victims.append(int(partials[0].name.split("-")[1].split(".")[0]))
        os.kill(victims[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one_worker)
    killer.start()
    capfd.readouterr()
    counts = reinforce(on_ray)
    killer.join()
    assert len(victims) == 1
    assert counts.images == NUM_TRAIN_SHARDS * 40
    assert renames.read() == [f"{n:05d}.tar" for n in range(NUM_TRAIN_SHARDS)]
    assert_same_folder(on_ray.out, local.out)
    printed = capfd.readouterr()
    assert len(printed.out.splitlines()) == 6  # only the table, with a row for the kill
    assert counts.begun_again == 1
    assert all("reinforce" in line for line in printed.err.replace("\r", "\n").splitlines() if line.strip())


def test_ray_is_asked_for_by_name_where_it_is_missing(
    small: ReinforceConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install 'mobileclip-dense\[ray\]'"):
        reinforce(dataclasses.replace(small, out=tmp_path / "out", engine="ray"))
    assert not (tmp_path / "out").exists()


def test_a_worker_holds_the_same_teachers_as_the_others_and_leaves_what_is_complete(
    small: ReinforceConfig, alone: Path
) -> None:
    """A file on another machine may have the same name but other contents; a worker may die after renaming."""
    job = Job(shard=small.data / "train" / "00000.tar", out=alone / "train" / "00000.tar")
    record = json.loads((alone / SIDECAR).read_text())
    written = job.out.stat()
    assert _reinforce(small, job, record) == Counts()
    record["teachers"][0]["weights_sha256"] = "0"
    with pytest.raises(ValueError, match=r"teachers or captions: found .* as on the others"):
        _reinforce(small, job, record)
    assert job.out.stat() == written
