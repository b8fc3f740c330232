import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from torchvision.transforms import v2

from mobileclip_dense.pretraining.captioner import CocaCaptioner, FileCaptions, load_captioner, sample_nucleus
from tests.pretraining.conftest import VIT_MEAN, VIT_STD, blotches

CPU = torch.device("cpu")
IMAGES = blotches(3, 32)


def test_the_captions_of_a_shard_are_its_own() -> None:
    captioner = load_captioner("shard", 5, CPU)
    assert captioner.write(["a"], [["one", "two"]], None, []) == [["one", "two"]]


def test_captions_are_found_by_key_in_either_kind_of_file(tmp_path: Path) -> None:
    lines, table = tmp_path / "captions.jsonl", tmp_path / "captions.tsv"
    lines.write_text(json.dumps({"key": "7", "syn_text": ["a cone", "ein grüner Kegel"]}) + "\n\n")
    table.write_text("7\ta cone\n8\ta cube\n7\tein grüner Kegel\n")
    for path in (lines, table):
        captioner = load_captioner(str(path), 5, CPU)
        assert captioner.write(["7", "9"], [[], []], None, []) == [["a cone", "ein grüner Kegel"], []]
        assert captioner.describe()["source"] == path.name


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("c.jsonl", '{"key": "1", "syn_text": ["a"]}\n{"key": 2}', ["c.jsonl:2", "syn_text"]),
        ("c.jsonl", "nonsense", ["c.jsonl:1", "not a line of JSON"]),
        ("c.txt", "1\ta cone\n2 a cube", ["c.txt:2", "KEY<tab>caption"]),
    ],
)
def test_a_caption_file_in_another_form_is_refused_by_line(
    name: str, text: str, words: list[str], tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match="captions") as refused:
        FileCaptions(tmp_path / name)
    assert all(word in str(refused.value) for word in words)


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_caption_holds_what_others_take_for_the_end_of_a_line(character: str, mark: str, tmp_path: Path) -> None:
    caption = f"a nice{character}thing"
    lines = {
        "c.jsonl": json.dumps({"key": "000", "syn_text": [caption]}, ensure_ascii=False),
        "c.txt": f"000\t{caption}",
        "c.tsv": f"000\t{caption}\r",
    }
    for name, line in lines.items():
        (tmp_path / name).write_text(f"{mark}{line}\n", encoding="utf-8", newline="")
        assert FileCaptions(tmp_path / name).write(["000"], [[]], None, []) == [[caption]]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("c.txt", "1\tun caf\u00e9".encode("utf-16"), "found UTF-16"),
        ("c.txt", "1\tun caf\u00e9".encode("latin-1"), "found byte 0xe9"),
        ("c.txt", "1\ta cone".encode("utf-16-le"), "found NUL"),
        ("c.txt", "1\t\u200b\n".encode(), "expected KEY<tab>caption"),
        ("c.jsonl", b'{"key": "1", "syn_text": ["a\\u0000b"]}', "c.jsonl:1: captions: found NUL"),
        ("c.jsonl", b'{"key": "1", "syn_text": ["a\\ud800b"]}', "c.jsonl:1: captions: found half a surrogate pair"),
    ],
)  # fmt: skip
def test_a_caption_file_that_is_no_utf_8_text_is_refused(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=message):
        FileCaptions(tmp_path / name)


def test_the_nucleus_on_a_case_worked_out_by_hand() -> None:
    logits = torch.tensor([0.05, 0.3, 0.5, 0.15]).log().expand(6, 4)
    # 0.5 and 0.3 are the smallest set that reaches 0.7: of their 0.8, the first 0.5 are token 2, the rest token 1.
    uniform = torch.tensor([0.0, 0.5, 0.62, 0.63, 0.9, 0.9999999])
    assert sample_nucleus(logits, uniform, 0.7).tolist() == [2, 2, 2, 1, 1, 1]
    assert sample_nucleus(logits, uniform, 0.4).tolist() == [2] * 6
    assert sample_nucleus(logits[:1], torch.tensor([0.96]), 1.0).tolist() == [0]


def one_by_one(folder: str, image: torch.Tensor, uniform: np.ndarray) -> str:
    """The same caption from open_clip's plain forward pass, one sequence alone, in NumPy."""
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    transform = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(VIT_MEAN, VIT_STD)])
    text = [tokenizer.sot_token_id]
    while len(text) < 30:
        with torch.no_grad():
            output = model(transform(image)[None], torch.tensor([text]), output_labels=False)
        logits = output["logits"][0, -1].double().numpy()
        if len(text) < 5:
            logits[tokenizer.eot_token_id] = -np.inf
        p = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        order = np.argsort(-p)
        nucleus = order[: int(np.searchsorted(np.cumsum(p[order]), 0.9)) + 1]
        drawn = nucleus[np.searchsorted(np.cumsum(p[nucleus]), uniform[len(text)] * p[nucleus].sum(), side="right")]
        if drawn == tokenizer.eot_token_id:
            break
        text.append(int(drawn))
    return " ".join(tokenizer.decode(text[1:]).split())


def test_coca_writes_what_its_plain_forward_pass_says_whatever_else_is_in_the_batch(coca: str) -> None:
    captioner = load_captioner(coca, 2, CPU)
    assert isinstance(captioner, CocaCaptioner)
    assert captioner.image_size_px == 32
    batch = captioner.write(["a", "b", "c"], [[]] * 3, IMAGES, [np.random.default_rng(i) for i in range(3)])
    assert [len(captions) for captions in batch] == [2, 2, 2]
    assert len({caption for captions in batch for caption in captions}) == 6
    uniform = np.random.default_rng(1).random((2, 30))
    assert batch[1] == [one_by_one(coca, IMAGES[1], u) for u in uniform]


def test_a_captioner_must_be_able_to_write(vit_teacher: str) -> None:
    with pytest.raises(ValueError, match="without a text decoder, expected a CoCa model"):
        load_captioner(vit_teacher, 2, CPU)
