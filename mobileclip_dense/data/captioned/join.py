"""`mobileclip-dense join`: join DataComp's images and DataCompDR's reinforcements by uid into training shards.

Image and reinforcement shards usually hold different samples: users download the images themselves, and many are no
longer available. The join has two passes. The first writes the uid, shard and byte range of every reinforced sample to
an index on disk (SQLite, about 60 bytes per sample: 0.8 GB for DataCompDR-12M). The second reads the image shards in
order and looks up each sample's reinforcement. Memory does not grow with the data. If the shards do hold the same
samples, the reads are sequential. Both passes resume after the last complete shard.
"""

import io
import json
import sqlite3
import tarfile
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any

from mobileclip_dense.artifact.files import staged_file, write_json
from mobileclip_dense.artifact.outputs import JOINED, claim_folder, remove_claimed
from mobileclip_dense.config import JoinConfig
from mobileclip_dense.data.captioned.caption_text import read_json
from mobileclip_dense.data.captioned.reinforced import EMBEDDING_MEMBERS
from mobileclip_dense.data.captioned.shards import (
    UNREADABLE,
    StrictHeader,
    list_shards,
    open_seekable,
    read_samples,
    split_name,
)
from mobileclip_dense.data.captioned.tar import add_sample, padded_size
from mobileclip_dense.pages.progress import progress_bar

_REINFORCEMENT = ("syn.json", "paug.json", *EMBEDDING_MEMBERS)
_TABLES = """
CREATE TABLE IF NOT EXISTS source (images TEXT, reinforcements TEXT);
CREATE TABLE IF NOT EXISTS shard (number INTEGER PRIMARY KEY, url TEXT UNIQUE, fault TEXT);
CREATE TABLE IF NOT EXISTS sample (uid TEXT PRIMARY KEY, shard INTEGER, start INTEGER, stop INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS joined (url TEXT PRIMARY KEY, counts TEXT);
"""


def join(config: JoinConfig) -> dict[str, Any]:
    """Write OUT/NAME.tar for every image shard NAME.tar with a match, and OUT/join.json with the counts.

    A joined sample has the image sample's key and members, plus syn.json, paug.json, and npz or pth.gz. Images without
    a reinforcement are skipped and counted.

    Raises:
        FileNotFoundError: a source has no shards.
        FileExistsError: OUT was joined from other sources, or is complete.
        ValueError: two image shards have the same file name, or no uid matches.
    """
    images, reinforcements = (list_shards(source, "train") for source in (config.images, config.reinforcements))
    _check_sources(images, reinforcements, config.out)
    sources = {"--images": Path(config.images), "--reinforcements": Path(config.reinforcements)}
    if config.force and claim_folder(config.out, JOINED, force=True, inputs=sources):
        remove_claimed(config.out)
    path = config.out / "index.sqlite"
    if config.out.exists() and any(config.out.iterdir()) and not path.exists():
        raise FileExistsError(f"{config.out}: found a folder that join did not write; choose another --out")
    if (config.out / "join.json").exists():
        raise FileExistsError(f"{config.out}: already complete; choose another --out, or pass --force to replace it")
    config.out.mkdir(parents=True, exist_ok=True)
    index = sqlite3.connect(path)
    try:
        _check_begun(index, config)
        for shard in progress_bar(reinforcements, "index", unit="shard"):
            _index_shard(index, shard)
        for shard in progress_bar(images, "join", unit="shard"):
            _join_shard(index, shard, config.out)
        result = _summarise(index, config)
    except sqlite3.Error as error:
        raise OSError(f"{path}: {error}; is the disk full? If not, delete the file and run the command again") from None
    finally:
        index.close()
        _keep_open.cache_clear()
    write_json(config.out / "join.json", result)
    _print(config.out, result)
    return result


def _name(shard: str) -> str:
    return shard.rsplit("/", 1)[-1]


def _check_sources(images: list[str], reinforcements: list[str], out: Path) -> None:
    twice = [name for name, number in Counter(_name(shard) for shard in images).items() if number > 1]
    if twice:
        raise ValueError(
            f"--images: found {twice[0]} twice, expected unique file names: they become those of the output shards"
        )
    inside = [shard for shard in images + reinforcements if out.resolve() in Path(shard).resolve().parents]
    if inside:
        raise ValueError(f"--out: found the input {inside[0]} in it, expected a folder without inputs")
    pipes = [shard for shard in reinforcements if shard.startswith("pipe:")]
    if pipes:
        raise ValueError(f"--reinforcements: found {pipes[0]}, expected files or URLs that support random access")


def _check_begun(index: sqlite3.Connection, config: JoinConfig) -> None:
    """Record the sources, or check that they are the same as before the interruption."""
    index.executescript(_TABLES)
    source = (config.images, config.reinforcements)
    begun = index.execute("SELECT images, reinforcements FROM source").fetchone()
    if begun is None:
        with index:
            index.execute("INSERT INTO source VALUES (?, ?)", source)
    elif begun != source:
        raise FileExistsError(
            f"{config.out}: begun with --images {begun[0]} --reinforcements {begun[1]}; pass the same sources, "
            f"choose another --out, or pass --force"
        )


def _index_shard(index: sqlite3.Connection, shard: str) -> None:
    """Index the byte range of each uid in a reinforcement shard, in one transaction."""
    if index.execute("SELECT 1 FROM shard WHERE url = ?", (shard,)).fetchone():
        return
    places: dict[str, list[int]] = {}
    fault = None
    try:
        with open_seekable(shard) as file, tarfile.open(fileobj=file, mode="r:", tarinfo=StrictHeader) as tar:
            while (info := tar.next()) is not None:
                uid, suffix = split_name(_name(info.name))
                stop = info.offset_data + padded_size(info.size)
                if info.isfile() and suffix in _REINFORCEMENT and _is_storable(uid):
                    places.setdefault(uid, [info.offset, stop])[1] = stop
    except UNREADABLE as error:
        fault = f"{type(error).__name__}: {error}"
        if places:
            places.popitem()  # the last sample may be truncated
    with index:
        number = index.execute("INSERT INTO shard (url, fault) VALUES (?, ?)", (shard, fault)).lastrowid
        rows = ((uid, number, start, stop) for uid, (start, stop) in places.items())
        index.executemany("INSERT OR IGNORE INTO sample VALUES (?, ?, ?, ?)", rows)


def _join_shard(index: sqlite3.Connection, shard: str, out: Path) -> None:
    """Write the output shard of an image shard, unless none of its samples has a reinforcement."""
    if index.execute("SELECT 1 FROM joined WHERE url = ?", (shard,)).fetchone():
        return
    counts: Counter[str] = Counter(matched=0, missing=0, without_uid=0, unreadable=0)
    target = out / _name(shard)
    with staged_file(target) as staging, tarfile.open(staging, "w") as tar:
        for sample in read_samples(shard):
            if sample.fault is not None:
                counts["unreadable"] += 1
                continue
            uid = _uid(sample.members)
            reinforcement = {} if uid is None else _reinforcement(index, uid)
            counts["without_uid" if uid is None else "matched" if reinforcement else "missing"] += 1
            if reinforcement:
                add_sample(tar, sample.key, sample.members | reinforcement)
    if not counts["matched"]:
        target.unlink()
    with index:
        index.execute("INSERT INTO joined VALUES (?, ?)", (shard, json.dumps(counts)))


def _uid(members: dict[str, bytes]) -> str | None:
    """DataComp's uid, from img2dataset's json; None if there is none."""
    try:
        record = read_json(members.get("json", b"null"), "json")
    except ValueError:
        return None
    uid = record.get("uid") if isinstance(record, dict) else None
    return uid if isinstance(uid, str) and _is_storable(uid) else None


def _is_storable(uid: str) -> bool:
    """Whether SQLite can store a uid. It rejects strings that are not valid UTF-8."""
    return uid.isprintable()


def _reinforcement(index: sqlite3.Connection, uid: str) -> dict[str, bytes]:
    """Members of a uid's reinforcement by suffix; empty if the uid is unknown."""
    query = "SELECT url, start, stop FROM sample JOIN shard ON shard = number WHERE uid = ?"
    place = index.execute(query, (uid,)).fetchone()
    if place is None:
        return {}
    url, start, stop = place
    try:
        file = _keep_open(url)
        file.seek(start)
        with tarfile.open(fileobj=io.BytesIO(file.read(stop - start)), mode="r:") as tar:
            found = {split_name(_name(info.name)): tar.extractfile(info) for info in tar if info.isfile()}
            members = {suffix: file.read() for (key, suffix), file in found.items() if file and key == uid}
    except UNREADABLE as error:
        raise ValueError(
            f"{url}: uid {uid}: cannot be read ({error}); if the shard has changed since it was indexed, pass --force "
            f"to start over"
        ) from None
    return {suffix: data for suffix, data in members.items() if suffix in _REINFORCEMENT}


_keep_open = lru_cache(maxsize=32)(open_seekable)


def _summarise(index: sqlite3.Connection, config: JoinConfig) -> dict[str, Any]:
    by_shard = {url: json.loads(counts) for url, counts in index.execute("SELECT url, counts FROM joined ORDER BY url")}
    totals: Counter[str] = sum((Counter(counts) for counts in by_shard.values()), Counter())
    faults = dict(index.execute("SELECT url, fault FROM shard WHERE fault IS NOT NULL ORDER BY url"))
    if not totals["matched"]:
        raise ValueError(
            f"{config.out}: found no image with the uid of a reinforcement; images without a uid in json: "
            f"{totals['without_uid']}, with an unknown uid: {totals['missing']}"
        )
    return {
        "images": config.images,
        "reinforcements": config.reinforcements,
        "reinforced_samples": index.execute("SELECT count(*) FROM sample").fetchone()[0],
        **{name: totals[name] for name in ("matched", "missing", "without_uid")},
        "unreadable_image_shards": totals["unreadable"],
        "unreadable_reinforcement_shards": faults,
        "by_shard": by_shard,
    }


def _print(out: Path, result: dict[str, Any]) -> None:
    print(f"{out}: {sum(counts['matched'] > 0 for counts in result['by_shard'].values())} shards")
    for text, name in (
        ("images joined with their reinforcement", "matched"),
        ("images without a reinforcement, skipped", "missing"),
        ("images without a uid, skipped", "without_uid"),
        ("reinforcements in the index", "reinforced_samples"),
        ("image shards not fully readable", "unreadable_image_shards"),
    ):
        print(f"  {result[name]:>12,}  {text}")
    print(f"  {len(result['unreadable_reinforcement_shards']):>12,}  reinforcement shards not fully readable")
