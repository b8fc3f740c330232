import itertools
import json
import re
from collections import Counter
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image

from mobileclip_dense.analysis.caption_rules import broken_rules, normalized, split_words
from mobileclip_dense.analysis.caption_statistics import (
    CaptionSet,
    clip_lengths,
    describe_duplicates,
    describe_sets,
    expected_distinct,
)
from mobileclip_dense.analysis.captions import Pair, Source, pick_pictures, short_names
from mobileclip_dense.analysis.parts_of_speech import tag_words
from tests.analysis.conftest import Command
from tests.data.shards import jpeg, record, write_shard

TAGGED = """\
two/number dogs/noun run/verb across/preposition the/determiner wet/adjective sand/noun of/preposition a/determiner \
beach/noun
a/determiner woman/noun in/preposition a/determiner red/adjective dress/noun is/verb holding/verb an/determiner \
umbrella/noun
an/determiner old/adjective wooden/adjective table/noun with/preposition three/number glasses/noun and/conjunction \
a/determiner bottle/noun
a/determiner man/noun riding/verb a/determiner wave/noun on/preposition top/noun of/preposition a/determiner \
surfboard/noun
the/determiner small/adjective red/adjective cube/noun is/verb to/preposition the/determiner left/noun of/preposition \
the/determiner green/adjective cone/noun
Stock/noun photo/noun royalty/noun free/adjective
Best/adjective prices/noun on/preposition home/noun decor/noun free/adjective shipping/noun
a/determiner black/adjective cat/noun sleeps/verb quietly/adverb under/preposition a/determiner window/noun
it/pronoun stands/verb alone/adverb on/preposition a/determiner brick/noun floor/noun under/preposition \
an/determiner open/adjective sky/noun
people/noun walk/verb their/pronoun dogs/noun in/preposition the/determiner park/noun near/preposition a/determiner \
large/adjective fountain/noun
a/determiner plate/noun of/preposition food/noun that/pronoun looks/verb very/adverb tasty/adjective
several/adjective cars/noun are/verb parked/verb slowly/adverb along/preposition a/determiner narrow/adjective \
street/noun in/preposition London/noun"""  # by hand


def test_the_tagger_agrees_with_captions_tagged_by_hand() -> None:
    pairs = []
    for line in TAGGED.splitlines():
        words, expected = zip(*(word.split("/") for word in line.split()), strict=True)
        pairs += list(zip(words, expected, tag_words(list(words)), strict=True))
    wrong = [pair for pair in pairs if pair[1] != pair[2]]
    assert len(pairs) == 112
    assert len(wrong) <= 4, wrong
    assert tag_words([]) == []


def test_words_are_split_at_signs_and_not_at_apostrophes_and_hyphens() -> None:
    assert split_words("A dog's  ball, half-red; IMG_20.jpg (2024)") == [
        "A", "dog's", "ball", "half-red", "IMG", "20", "jpg", "2024",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("caption", "rules"),
    [
        ("a red cone on a tiled floor", set()),
        ("an empty beach at www-inspired sunset", set()),
        ("floral wallpaper in a bedroom", set()),
        ("blue cone 4821", set()),
        ("IMG_2041.jpg", {"file name", "names nothing"}),
        ("DSC 0412", {"file name", "names nothing"}),
        ("photo-12 (3)", {"file name", "names nothing"}),
        ("a dog, dog.jpeg", {"file name"}),
        ("https://example.org/a?b=c", {"URL", "names nothing"}),
        ("Red shoes - shoes.example.com", {"URL"}),
        ("Click to enlarge", {"boilerplate", "names nothing"}),
        ("Stock photo, royalty free", {"boilerplate", "names nothing"}),
        ("Leather boots, free shipping!", {"boilerplate"}),
        ("photo gallery page 12", {"boilerplate", "names nothing"}),
        ("3D image", {"names nothing"}),
        ("very beautiful", {"names nothing"}),
        ("!!!", {"names nothing"}),
    ],
)
def test_rules_find_what_shows_nothing(caption: str, rules: set[str]) -> None:
    assert broken_rules(caption) == rules


def test_rules_take_little_time_on_captions_of_any_length() -> None:
    for text in ("a.b-" * 8000, "1 " * 8000 + "!", "www." * 8000, "x.jpgx" * 8000, "-" * 20_000, " " * 40_000 + "x"):
        assert broken_rules(text) <= {"file name", "URL", "names nothing"}  # quadratic time would hang here


def test_near_duplicates_differ_in_case_signs_and_numbers_only() -> None:
    assert normalized("Blue  CONE, 4821!") == normalized("blue cone 7") == "blue cone 0"
    assert normalized("blue cones") != normalized("blue cone")
    found = describe_duplicates(["a cone", "a cone", "A cone!", "a cube"])
    assert found == {"exact": 0.25, "near": 0.5, "most_common": [["a cone", 2]]}


def test_expected_vocabulary_is_the_mean_over_all_samples() -> None:
    counts = Counter(a=3, b=2, c=1)
    words = list(counts.elements())
    for size in range(1, 7):
        samples = list(itertools.combinations(words, size))
        mean = sum(len(set(sample)) for sample in samples) / len(samples)
        assert expected_distinct(counts, size) == pytest.approx(mean)


def test_clip_length_is_that_of_the_tokenizer() -> None:
    captions = ["a red cone", "IMG_2041.jpg", "", "naïve café"]
    tokens = open_clip.get_tokenizer("ViT-B-16")(captions)
    assert clip_lengths(captions) == (tokens != 0).sum(dim=1).tolist()


def test_figures_of_captions_counted_by_hand() -> None:
    short = CaptionSet(name="short", captions=[["A cone"], ["a cone"]], similarities=[[0.5], [0.25]])
    long = CaptionSet(name="long", captions=[["a red cone", "two dogs run"], [], ["one " * 90]])
    first, second = describe_sets([short, long])
    assert (first["num_samples"], first["num_captions"]) == (2, 2)
    assert first["words"] == {
        "mean": 2,
        "percentiles": {"5": 2, "25": 2, "50": 2, "75": 2, "95": 2},
        "histogram": [0, 0, 2],
    }
    assert first["vocabulary"]["num_distinct"] == 2  # without case
    assert first["vocabulary"]["type_token_ratio"] == pytest.approx(2 / 4)
    assert first["parts_of_speech"]["share"]["noun"] == pytest.approx(0.5)
    assert first["parts_of_speech"]["per_caption"]["determiner"] == pytest.approx(1)
    assert first["similarity"]["mean"] == pytest.approx(0.375)
    assert (second["num_samples"], second["num_captions"]) == (2, 3)
    assert second["words"]["mean"] == pytest.approx(96 / 3)
    assert second["words"]["histogram"][3] == 2
    assert second["clip_tokens"]["share_cut"] == pytest.approx(1 / 3)
    assert second["vocabulary"]["sample_size"] == 4  # that of the smaller set
    assert second["vocabulary"]["growth"][-1] == [96, pytest.approx(7)]
    assert second["similarity"] is None


def test_names_leave_out_what_all_sources_share() -> None:
    assert short_names(["data/alt/shards", "data/clean/shards/"]) == ["alt", "clean"]
    assert short_names(["data/alt/shards"]) == ["data/alt/shards"]
    assert short_names(["a/{0..3}.tar", "a/b/{0..3}.tar"]) == ["{0..3}.tar", "b/{0..3}.tar"]


def test_pictures_are_spread_over_the_ranks_of_similarity(tmp_path: Path) -> None:
    shard = str(write_shard(tmp_path / "0.tar", {str(i): {"jpg": jpeg(i), "txt": b"x"} for i in range(5)}))
    pairs = [Pair(shard=shard, key=str(i), original=[f"caption {i}"], synthetic=["s"]) for i in range(5)]
    scores = [[0.3, 0.9], [0.1, 0.9], [0.5, 0.0], [0.2, 0.9], [0.4, 0.9]]
    source = Source(source="s", name="s", pairs=pairs, similarities=scores)
    pictures = pick_pictures(source, 3)
    assert [picture.captions[0] for picture in pictures] == ["caption 1", "caption 0", "caption 2"]
    assert [picture.percentile for picture in pictures] == [0, 50, 100]
    assert len(pick_pictures(source, 9)) == 5
    assert pick_pictures(source, 0) == []


def test_the_command_writes_one_page_with_all_inside(analyze: Command, clip_run: Path, tmp_path: Path) -> None:
    alt, reinforced = tmp_path / "alt" / "shards", tmp_path / "reinforced" / "shards"
    write_shard(alt / "train" / "0.tar", {
        "a": {"jpg": jpeg(1), "txt": b"IMG_2041.jpg"},
        "b": {"jpg": b"no image", "txt": b"a cone"},
        "c": {"jpg": jpeg(2), "txt": b"  "},
        "d": {"jpg": jpeg(3), "json": record(caption="<script>alert(1)</script> cone")},
    })  # fmt: skip
    (alt / "train" / "1.tar").write_bytes(b"no tar")
    write_shard(reinforced / "train" / "0.tar", {
        "a": {"jpg": jpeg(4), "txt": b"red cone", "syn.json": record(syn_text=["a red cone on grass", "one cone"])},
        "b": {"jpg": jpeg(5), "txt": b"a cube"},
    })  # fmt: skip
    out = tmp_path / "captions.html"
    analyze("captions", alt, reinforced, "--clip", clip_run, "--out", out)
    figures = json.loads(out.with_suffix(".json").read_text())
    assert figures["bad_samples"] == {str(alt): {"image": 1, "caption": 1, "shard": 1}, str(reinforced): {}}
    names = [one["name"] for one in figures["sets"]]
    assert names == ["alt", "reinforced", "reinforced (synthetic)"]
    assert [one["num_captions"] for one in figures["sets"]] == [2, 2, 2]
    assert [one["num_samples"] for one in figures["sets"]] == [2, 2, 1]
    expected = stock_similarity(clip_run, reinforced.parent, jpeg(4), ["a red cone on grass", "one cone"])
    assert figures["sets"][2]["similarity"]["mean"] == pytest.approx(sum(expected) / 2, abs=1e-5)
    page = out.read_text()
    assert page.count("<svg") == 6
    assert page.count("src='data:image/jpeg;base64,") == 4
    assert not re.search(r"(src|href)=['\"](?!data:|#)", page)  # nothing from elsewhere
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page


def stock_similarity(run: Path, folder: Path, image: bytes, captions: list[str]) -> list[float]:
    """The cosines as computed by open_clip from the run's folder."""
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{run}")
    (folder / "image.jpg").write_bytes(image)
    with torch.no_grad(), Image.open(folder / "image.jpg") as picture:
        pixels = model.eval().encode_image(transform(picture)[None], normalize=True)
        texts = model.encode_text(open_clip.get_tokenizer("MobileCLIP-nano")(captions), normalize=True)
    similarities: list[float] = (texts @ pixels[0]).tolist()
    return similarities


def test_without_a_model_or_pictures_the_page_says_so(analyze: Command, tmp_path: Path) -> None:
    write_shard(tmp_path / "train" / "0.tar", {str(i): {"jpg": b"unseen", "txt": b"a cone"} for i in range(3)})
    analyze("captions", tmp_path, "--num-pictures", 0, "--max-samples", 2, "--out", tmp_path / "captions.html")
    page = (tmp_path / "captions.html").read_text()
    assert "no similarities" in page
    assert "<img" not in page
    (one,) = json.loads((tmp_path / "captions.json").read_text())["sets"]
    assert (one["num_captions"], one["similarity"]) == (2, None)


def test_captions_without_a_word_get_their_page(analyze: Command, tmp_path: Path) -> None:
    write_shard(tmp_path / "train" / "0.tar", {str(i): {"jpg": jpeg(i), "txt": "🙂 !".encode()} for i in range(3)})
    analyze("captions", tmp_path, "--out", tmp_path / "captions.html")
    (one,) = json.loads((tmp_path / "captions.json").read_text())["sets"]
    assert one["vocabulary"]["growth"] == []
    with pytest.raises(SystemExit):  # only the JSON exists
        analyze("captions", tmp_path, "--out", tmp_path / "captions.svg")
    assert not (tmp_path / "captions.svg").exists()


def test_what_cannot_be_analyzed_is_said(
    analyze: Command, segment_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, empty, bare = tmp_path / "good", tmp_path / "empty", tmp_path / "bare"
    empty.mkdir()
    write_shard(good / "0.tar", {"a": {"jpg": jpeg(1), "txt": b"a cone"}})
    write_shard(bare / "0.tar", {"a": {"jpg": jpeg(1)}, "b": {"jpg": jpeg(2), "txt": b""}})
    out = ("--out", tmp_path / "captions.html")
    for arguments, message in (
        ([empty], "empty/train: shards: found no *.tar"),
        ([tmp_path / "nowhere"], "nowhere/train: shards: no such folder"),
        ([bare], "bare: captions: found no usable sample in 1 shards (bad: 1 members, 1 caption)"),
        ([good, "--clip", segment_run], "found a fine-tuning run, expected a pretraining run"),
        ([good, "--clip", "nonsense"], "--clip: teacher: found 'nonsense', expected MODEL:TAG"),
    ):
        with pytest.raises(SystemExit):
            analyze("captions", *arguments, *out)
        assert message in capsys.readouterr().err
    assert not out[1].exists()
