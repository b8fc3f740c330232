"""The losses against a float64 transcription in plain loops, against open_clip's, and in several processes."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from open_clip.loss import ClipLoss, DistillClipLoss
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from mobileclip_dense.pretraining.losses import (
    Features,
    reinforced_loss,
    split_teachers,
)
from tests.pretraining.processes import run_world

PAIRS, WIDTH = 8, 6


@dataclass(frozen=True)
class Case:
    """The number of caption sets, the weights (w_0, w_1), and the width and scale of each teacher."""

    num_sets: int
    weights: tuple[float, float]
    teachers: tuple[tuple[int, float], ...] = ()


CASES = {
    "CLIP": Case(1, (1.0, 0.0)),
    "CLIP on two caption sets": Case(2, (1.0, 0.0)),
    "one teacher": Case(1, (0.0, 1.0), ((5, 20.0),)),
    "two teachers": Case(2, (0.25, 0.75), ((5, 20.0), (7, 4.0))),
    "three teachers": Case(2, (1.5, 0.5), ((7, 100.0), (3, 1.0), (5, 6.0))),
}


def random_features(generator: torch.Generator, width: int, num_sets: int, scale: float) -> Features:
    parts = [normalize(torch.randn(PAIRS, width, generator=generator), dim=1) for _ in range(1 + num_sets)]
    return Features(parts[0], tuple(parts[1:]), scale)


def networks(case: Case) -> tuple[Features, list[Features]]:
    generator = torch.Generator().manual_seed(0)
    student = random_features(generator, WIDTH, case.num_sets, 9.0)
    return student, [random_features(generator, width, case.num_sets, scale) for width, scale in case.teachers]


def part_of(network: Features, rank: int, world_size: int) -> Features:
    image, *texts = (part.chunk(world_size)[rank] for part in (network.image, *network.texts))
    return Features(image, tuple(texts), network.logit_scale)


def value_and_gradients(student: Features, teachers: list[Features], case: Case) -> tuple[float, list[np.ndarray]]:
    """Total, and its gradients with respect to the image features, each caption set's, and the logit scale."""
    leaves = [part.clone().requires_grad_() for part in (student.image, *student.texts)]
    scale = torch.tensor(student.logit_scale, requires_grad=True)
    losses = reinforced_loss(Features(leaves[0], tuple(leaves[1:]), scale), teachers, weights=case.weights)
    losses.total.backward()
    return losses.total.item(), [leaf.grad.numpy() for leaf in (*leaves, scale)]


def softmax(logits: list[float]) -> list[float]:
    highest = max(logits)
    powers = [math.exp(logit - highest) for logit in logits]
    return [power / sum(powers) for power in powers]


def by_loops(values: list[np.ndarray], teachers: list[Features], weights: tuple[float, float]) -> float:
    """The loss as the paper writes it, float64; `values` are image features, texts of each caption set, logit scale."""
    image, *texts, scale = values
    num = len(image)
    total = 0.0
    for which, text in enumerate(texts):
        for image_first in (True, False):
            rows, columns = (image, text) if image_first else (text, image)
            for i in range(num):
                student = softmax([float(scale) * float(rows[i] @ columns[j]) for j in range(num)])
                total += weights[0] * -math.log(student[i]) / num / 2
                for teacher in teachers:
                    pair = (teacher.image.double().numpy(), teacher.texts[which].double().numpy())
                    own, others = pair if image_first else pair[::-1]
                    wanted = softmax([teacher.logit_scale * float(own[i] @ others[j]) for j in range(num)])
                    cross_entropy = -sum(p * math.log(q) for p, q in zip(wanted, student, strict=True))
                    total += weights[1] * cross_entropy / len(teachers) / num / 2
    return total


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradients_are_those_of_the_formula_in_float64(name: str) -> None:
    case = CASES[name]
    student, teachers = networks(case)
    total, gradients = value_and_gradients(student, teachers, case)
    values = [part.double().numpy() for part in (student.image, *student.texts)] + [np.float64(student.logit_scale)]
    assert total == pytest.approx(by_loops(values, teachers, case.weights), rel=1e-5)
    rng = np.random.default_rng(1)
    for index, (value, gradient) in enumerate(zip(values, gradients, strict=True)):
        direction = rng.normal(size=value.shape)
        sides = []
        for step in (1e-5, -1e-5):
            moved = [*values[:index], value + step * direction, *values[index + 1 :]]
            sides.append(by_loops(moved, teachers, case.weights))
        slope = (sides[0] - sides[1]) / 2e-5
        assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-4, abs=1e-5), index


def test_two_pairs_worked_out_by_hand() -> None:
    """Orthogonal pairs: a row's logits are (s, 0), its teacher's (t, 0)."""
    student, teacher = torch.eye(2), torch.eye(2)
    s, t = 2.0, 3.0
    wrong = math.log(1 + math.exp(-s))  # -log of softmax (s, 0) at the pair; s more at the other
    share = 1 / (1 + math.exp(t))  # of the teacher's other column
    losses = reinforced_loss(Features(student, (student,), s), [Features(teacher, (teacher,), t)], weights=(2.0, 3.0))
    assert losses.contrastive.item() == pytest.approx(wrong)
    assert losses.distillation.item() == pytest.approx(wrong + share * s)
    assert losses.total.item() == pytest.approx(2 * wrong + 3 * (wrong + share * s))


def test_one_teacher_and_one_caption_set_are_as_open_clip_has_them() -> None:
    student, (teacher,) = networks(CASES["one teacher"])
    scale = torch.tensor(student.logit_scale)
    both = DistillClipLoss()(student.image, student.texts[0], scale, teacher.image, teacher.texts[0], 20.0)
    features = Features(student.image, student.texts[:1], scale)
    assert reinforced_loss(features).total.item() == pytest.approx(both[0].item(), rel=1e-6)
    plain = ClipLoss()(student.image, student.texts[0], scale)
    assert reinforced_loss(features).total.item() == pytest.approx(plain.item(), rel=1e-6)
    distilled = reinforced_loss(features, [teacher], weights=(0.0, 1.0)).total
    assert distilled.item() == pytest.approx(both[1].item(), rel=1e-6)


def test_the_parts_for_the_log_add_up_and_carry_no_graph() -> None:
    case = CASES["three teachers"]
    student, teachers = networks(case)
    scale = torch.tensor(9.0, requires_grad=True)
    losses = reinforced_loss(student._replace(logit_scale=scale), teachers, weights=case.weights)
    assert losses.total.item() == pytest.approx(1.5 * losses.contrastive.item() + 0.5 * losses.distillation.item())
    assert losses.total.requires_grad
    assert not losses.contrastive.requires_grad
    assert not losses.distillation.requires_grad


def test_autocast_changes_nothing_and_teachers_get_no_gradient() -> None:
    case = CASES["two teachers"]
    student, teachers = networks(case)
    expected, gradients = value_and_gradients(student, teachers, case)
    image = student.image.clone().requires_grad_()
    asking = [one._replace(image=one.image.clone().requires_grad_()) for one in teachers]
    with torch.autocast("cpu", torch.bfloat16):
        total = reinforced_loss(student._replace(image=image), asking, weights=case.weights).total
    total.backward()
    assert total.item() == expected
    assert np.array_equal(image.grad.numpy(), gradients[0])
    assert all(one.image.grad is None for one in asking)


def test_the_loss_compiles_into_one_graph() -> None:
    case = CASES["two teachers"]
    student, teachers = networks(case)

    def total(image: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return reinforced_loss(Features(image, student.texts, scale), teachers, weights=case.weights).total

    expected, gradients = value_and_gradients(student, teachers, case)
    image, scale = student.image.clone().requires_grad_(), torch.tensor(student.logit_scale, requires_grad=True)
    loss = torch.compile(total, fullgraph=True, backend="aot_eager")(image, scale)
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(image.grad.numpy(), gradients[0], rtol=1e-5, atol=1e-7)
    assert scale.grad.item() == pytest.approx(float(gradients[-1]), rel=1e-5)


class Recorder(TorchDispatchMode):
    """Counts gathers and notes the shapes of all results."""

    def __init__(self) -> None:
        super().__init__()
        self.num_gathers = 0
        self.shapes: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.num_gathers += "all_gather_into_tensor" in str(func)
        if isinstance(result, torch.Tensor):
            self.shapes.add(tuple(result.shape))
        return result


def in_process(rank: int, world_size: int) -> tuple[dict[str, Any], int, set[tuple[int, ...]]]:
    results = {}
    for name, case in CASES.items():
        student, teachers = networks(case)
        parts = [part_of(teacher, rank, world_size) for teacher in teachers]
        with Recorder() as recorder:
            results[name] = value_and_gradients(part_of(student, rank, world_size), parts, case)
    return results, recorder.num_gathers, recorder.shapes


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_have_the_value_and_gradient_of_one_with_the_whole_batch(world_size: int, tmp_path: Path) -> None:
    answers = run_world(in_process, world_size, tmp_path, world_size)
    for name, case in CASES.items():
        total, gradients = value_and_gradients(*networks(case), case)
        totals, parts = zip(*(results[name] for results, _, _ in answers), strict=True)
        assert np.mean(totals) == pytest.approx(total, rel=1e-6), name
        *of_features, of_scale = zip(*parts, strict=True)
        for expected, found in zip(gradients, of_features, strict=False):
            # DDP averages gradients over processes, so the gradient of a process's features is divided by their number.
            together = np.concatenate(found) / world_size
            np.testing.assert_allclose(together, expected, rtol=1e-5, atol=1e-7, err_msg=name)
        assert np.mean(of_scale) == pytest.approx(float(gradients[-1]), rel=1e-5), name


def test_processes_gather_twice_and_make_no_matrix_of_all_by_all(tmp_path: Path) -> None:
    _, num_gathers, shapes = run_world(in_process, 2, tmp_path, 2)[0]
    assert num_gathers == 2  # the student's features with their gradients, the teachers' without
    assert (PAIRS // 2, PAIRS) in shapes
    assert (PAIRS, PAIRS) not in shapes


def test_teachers_embeddings_are_split_and_brought_to_unit_norm() -> None:
    embeddings = torch.tensor([[3.0, 4.0, 0.0, 0.0, 2.0]], dtype=torch.bfloat16)
    first, second = split_teachers(embeddings, (2, 3))
    torch.testing.assert_close(first, torch.tensor([[0.6, 0.8]]))
    torch.testing.assert_close(second, torch.tensor([[0.0, 0.0, 1.0]]))
    with pytest.raises(ValueError, match=r"found a width of 5, expected 6 \(2 \+ 4\)"):
        split_teachers(embeddings, (2, 4))


def test_features_that_do_not_belong_together_are_refused() -> None:
    student, teachers = networks(CASES["two teachers"])
    with pytest.raises(ValueError, match="teacher 2: found 8 pairs, 1 caption sets; expected 8, 2"):
        reinforced_loss(student, [teachers[0], teachers[1]._replace(texts=teachers[1].texts[:1])], weights=(0.0, 1.0))
    with pytest.raises(ValueError, match="teacher 1: found 4 pairs"):
        reinforced_loss(student, [part_of(teachers[0], 0, 2)], weights=(0.0, 1.0))
    with pytest.raises(ValueError, match="expected 0 without teachers"):
        reinforced_loss(student, weights=(0.0, 1.0))
