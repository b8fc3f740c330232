from pathlib import Path

import pytest
import torch

from mobileclip_dense.artifact.preprocess import Normalization
from mobileclip_dense.config import PretrainConfig
from mobileclip_dense.pretraining.evaluation import list_held_out
from mobileclip_dense.pretraining.retrieval import measure_retrieval, recall_at, verify_pairs
from tests.data.shards import jpeg, plain_members, write_shard

PLAIN = Normalization(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def test_recall_on_a_case_worked_out_by_hand() -> None:
    similarity = torch.tensor([[0.9, 0.1, 0.2], [0.8, 0.5, 0.6], [0.1, 0.7, 0.3]])  # own: first, third, second
    assert recall_at(similarity, 1) == pytest.approx(100 / 3)
    assert recall_at(similarity, 2) == pytest.approx(200 / 3)
    assert recall_at(similarity, 3) == 100
    assert recall_at(similarity.T, 1) == pytest.approx(100 / 3)  # own: first, second, second
    assert recall_at(similarity.T, 2) == 100


def test_a_collapsed_model_finds_its_pairs_as_often_as_chance() -> None:
    assert recall_at(torch.full((8, 8), 0.5), 1) == pytest.approx(100 / 8)
    assert recall_at(torch.full((8, 8), 0.5), 5) == pytest.approx(500 / 8)
    twins = torch.tensor([[0.9, 0.9, 0.1], [0.9, 0.9, 0.1], [0.0, 0.0, 1.0]])  # one caption for two images
    assert recall_at(twins, 1) == pytest.approx(200 / 3)


class Numbered(torch.nn.Module):
    """Embeds the N-th image, and the caption `picture N`, as the N-th unit vector."""

    def __init__(self) -> None:
        super().__init__()
        self.shown = 0
        self.visual = torch.nn.Identity()
        self.visual.preprocess_cfg = {"interpolation": "bilinear", "resize_mode": "shortest"}  # type: ignore[assignment]

    def encode_image(self, images: torch.Tensor, normalize: bool) -> torch.Tensor:
        first, self.shown = self.shown, self.shown + len(images)
        return torch.eye(8)[first : self.shown]

    def encode_text(self, texts: torch.Tensor, normalize: bool) -> torch.Tensor:
        return torch.eye(8)[texts]


def number_of(captions: list[str]) -> torch.Tensor:
    return torch.tensor([int(caption.split()[-1]) for caption in captions])


def test_held_out_samples_that_cannot_be_used_are_left_out(tmp_path: Path) -> None:
    good = {str(i): plain_members(i) for i in range(4)}
    bad = {"bad": {"jpg": jpeg(1)[:90], "txt": b"x"}, "empty": {"jpg": jpeg(1), "txt": b" "}}
    whole = write_shard(tmp_path / "0.tar", dict(list(good.items())[:2]) | bad | dict(list(good.items())[2:]))
    junk = tmp_path / "1.tar"
    junk.write_bytes(b"not a tar")
    figures = measure_retrieval(Numbered(), number_of, PLAIN, [str(junk), str(whole)], image_size_px=8,  # type: ignore[arg-type]
                                device=torch.device("cpu"), batch_size=3)  # fmt: skip
    assert (figures["num_pairs"], figures["num_skipped_pairs"]) == (4, 3)
    assert figures["image_to_text_recall_at_1"] == figures["text_to_image_recall_at_1"] == 100
    verify_pairs([str(junk), str(whole)])
    with pytest.raises(ValueError, match=r"no usable sample in 1 shards \(bad: 1 shard\)"):
        verify_pairs([str(junk)])
    with pytest.raises(ValueError, match="no usable sample in 1 shards"):
        measure_retrieval(Numbered(), number_of, PLAIN, [str(junk)], image_size_px=8, device=torch.device("cpu"))  # type: ignore[arg-type]


def test_held_out_pairs_are_those_named_or_those_beside_the_training_data(tmp_path: Path) -> None:
    train, val, flat = (write_shard(tmp_path / name, {"a": plain_members(0)})
                        for name in ("data/train/0.tar", "data/val/1.tar", "flat/2.tar"))  # fmt: skip

    def found(**sources: object) -> list[str]:
        return list_held_out(PretrainConfig(out=tmp_path / "run", **sources))  # type: ignore[arg-type]

    data, published = str(train.parent.parent), str(flat.parent)
    assert found(data=(data, published)) == [str(val)]
    assert found(data=(published,)) == found(data=("https://host/{0..2}.tar",)) == []
    assert found(data=(published,), val_data=data) == [str(val)]
    assert (
        found(data=(data,), val_data=published)
        == found(data=(data,), val_data=f"{published}/{{2..2}}.tar")
        == [str(flat)]
    )
