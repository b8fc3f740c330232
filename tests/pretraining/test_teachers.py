import time
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torchvision.transforms import v2

from mobileclip_dense.artifact.files import sha256_of
from mobileclip_dense.config import PretrainConfig
from mobileclip_dense.models.clip import build_clip
from mobileclip_dense.pretraining.teachers import Teacher, join_embeddings, load_clip
from mobileclip_dense.run.folder import finish_run, open_run
from tests.pretraining.conftest import VIT_MEAN, VIT_STD, blotches

CPU = torch.device("cpu")
CAPTIONS = ["a red cone in front of a wall", "two spheres, the left one blue; " * 8]


def test_each_teacher_normalizes_and_reads_as_its_own_model_was_trained_to(nano_teacher: str, vit_teacher: str) -> None:
    references = {
        nano_teacher: (128, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 48, open_clip.create_model(*nano_teacher.split(":"))),
        vit_teacher: (48, VIT_MEAN, VIT_STD, 16, open_clip.create_model(f"local-dir:{vit_teacher}")),
    }
    for name, (size_px, mean, std, context_length, model) in references.items():
        teacher = Teacher(name, CPU)
        model.eval()
        transform = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])
        tokens = open_clip.get_tokenizer("ViT-B-32", context_length=context_length)(CAPTIONS)
        with torch.no_grad():
            expected = model.encode_image(transform(blotches(3, size_px)), normalize=True)
            expected_texts = model.encode_text(tokens, normalize=True)
        found, found_texts = teacher.encode_images(blotches(3, size_px)), teacher.encode_texts(CAPTIONS)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found_texts, expected_texts, rtol=1e-4, atol=1e-5)
        assert teacher.image_size_px == size_px
        assert found.shape == (3, teacher.dim)
        assert (expected - expected.roll(1, 0)).abs().max() > 1e-2  # otherwise the comparison would be trivial


def test_joined_embeddings_keep_each_part_of_unit_norm(nano_teacher: str, vit_teacher: str) -> None:
    teachers = [Teacher(name, CPU) for name in (nano_teacher, vit_teacher)]
    joined = join_embeddings([teacher.encode_images(blotches(3, teacher.image_size_px)) for teacher in teachers])
    assert joined.shape == (3, 128 + 24)
    torch.testing.assert_close(joined[:, :128].norm(dim=1), torch.ones(3))
    torch.testing.assert_close(joined[:, 128:].norm(dim=1), torch.ones(3))


def test_the_temperature_is_the_learned_one_unless_given(vit_teacher: str) -> None:
    assert Teacher(vit_teacher, CPU).temperature == pytest.approx(1 / 0.07, rel=1e-5)  # open_clip's initial value
    assert Teacher(vit_teacher, CPU, temperature=100.0).temperature == 100.0


def test_the_weights_hash_is_of_values_and_not_of_their_file(nano_teacher: str, tmp_path: Path) -> None:
    model, _, _ = load_clip(nano_teacher)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, tmp_path / "same.safetensors")
    name, tensor = next((name, t) for name, t in state.items() if t.ndim == 4)
    save_file(state | {name: tensor * 1.001}, tmp_path / "other.safetensors")
    assert sha256_of(tmp_path / "same.safetensors") != sha256_of(Path(nano_teacher.split(":")[1]))
    hashes = [Teacher(n, CPU).weights_sha256 for n in (
        nano_teacher, f"MobileCLIP-nano:{tmp_path}/same.safetensors", f"MobileCLIP-nano:{tmp_path}/other.safetensors"
    )]  # fmt: skip
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_pretraining_run_is_a_teacher(tmp_path: Path) -> None:
    config = PretrainConfig(data=(str(tmp_path),), out=tmp_path / "run", model="nano", image_size_px=64)
    model, tokenizer, _ = build_clip("nano", 64)
    with open_run(config, {}):
        with pytest.raises(ValueError, match="not complete"):
            Teacher(str(config.out), CPU)
        finish_run(config, model.state_dict(), {}, started=time.time(), device="cpu", details={})
    teacher = Teacher(str(config.out), CPU)
    with torch.no_grad():
        expected = model.eval().encode_text(tokenizer(CAPTIONS), normalize=True)
    torch.testing.assert_close(teacher.encode_texts(CAPTIONS), expected)
    assert teacher.image_size_px == 64


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ViT-L-14", ["'ViT-L-14'", "MODEL:TAG"]),
        ("ViT-L14:openai", ["'ViT-L14'", "ViT-L-14"]),
        ("ViT-B-32:nowhere", ["nowhere", "no such file", "openai", "datacomp_xl_s13b_b90k"]),
        ("ViT-B-32:openai", ["another activation", "'ViT-B-32-quickgelu'"]),
        ("RN50:{nano}", ["not of model 'RN50'"]),
        ("MobileCLIP-nano:{junk}", ["junk.pt", "expected safetensors or a torch file"]),
        ("coca_ViT-B-32:nowhere.pt", ["could not load", "nowhere.pt"]),
        ("{empty}", ["no weights"]),
    ],
)
def test_what_is_no_teacher_is_refused_in_words(name: str, words: list[str], nano_teacher: str, tmp_path: Path) -> None:
    (tmp_path / "junk.pt").write_bytes(b"junk")
    (tmp_path / "open_clip_config.json").write_text("{}")
    given = name.format(nano=nano_teacher.split(":")[1], junk=tmp_path / "junk.pt", empty=tmp_path)
    with pytest.raises((ValueError, OSError)) as refused:
        Teacher(given, CPU)
    assert all(word in str(refused.value) for word in words), refused.value
