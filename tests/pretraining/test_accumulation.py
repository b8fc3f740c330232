"""Two passes over micro-batches against one pass over the whole batch, and against the graph of all micro-batches."""

import copy
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric
from open_clip.model import CLIP, CustomTextCLIP
from torch import Tensor, nn
from torch.distributed import GradBucket
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

import mobileclip_dense.models.clip  # noqa: F401 (timm knows the nano encoder from here on)
from mobileclip_dense.pretraining.accumulation import backward
from mobileclip_dense.pretraining.losses import Features, Losses, reinforced_loss
from mobileclip_dense.pretraining.towers import Towers
from tests.pretraining.processes import run_world

PAIRS, SIDE_PX = 8, 64
TEXT = {"context_length": 6, "vocab_size": 40, "width": 16, "heads": 2, "layers": 1}

Build = Callable[[], nn.Module]


def vit() -> nn.Module:
    """An open_clip `CLIP` without BatchNorm and without random numbers."""
    torch.manual_seed(0)
    return CLIP(8, {"image_size": SIDE_PX, "patch_size": 16, "width": 16, "head_width": 8, "layers": 2}, TEXT)


def nano(drop_path: float = 0.0) -> nn.Module:
    """A model with BatchNorm, and optionally with drop path."""
    torch.manual_seed(0)
    vision = {"timm_model_name": "fastvit_mci_nano", "timm_pool": "avg", "timm_proj": None, "image_size": SIDE_PX,
              "timm_drop_path": drop_path}  # fmt: skip
    return CustomTextCLIP(8, vision, TEXT)


def nano_with_drop_path() -> nn.Module:
    return nano(0.4)


def batch() -> tuple[Tensor, ...]:
    """Images and two caption sets."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(PAIRS, 3, SIDE_PX, SIDE_PX, generator=generator)
    return images, *(torch.randint(1, 40, (PAIRS, 6), generator=generator) for _ in range(2))


def micro_batches_of(sizes: Sequence[int]) -> list[tuple[Tensor, ...]]:
    return list(zip(*(part.split(list(sizes)) for part in batch()), strict=True))


def loss_of_part(rank: int, world_size: int) -> Callable[[Features], Losses]:
    """The loss with a teacher of random features, of which this process has its part."""
    generator = torch.Generator().manual_seed(2)
    image, *texts = (
        nn.functional.normalize(torch.randn(PAIRS, 5, generator=generator), dim=1).chunk(world_size)[rank]
        for _ in range(3)
    )
    teacher = Features(image, tuple(texts), 10.0)
    return lambda features: reinforced_loss(features, [teacher], weights=(0.5, 0.5))


def gradients(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}


def statistics(model: nn.Module) -> dict[str, np.ndarray]:
    """Running means, variances and counters of all BatchNorms."""
    names = ("running_mean", "running_var", "num_batches_tracked")
    return {name: buffer.numpy() for name, buffer in model.named_buffers() if name.endswith(names)}


def assert_close(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Compare to 1e-5 of each tensor's largest value (or 1): before a BatchNorm, some gradients are only rounding."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        largest = max(1.0, float(np.abs(value).max()))
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-5 * largest, err_msg=name)


def in_two_passes(build: Build, sizes: Sequence[int]) -> tuple[nn.Module, Losses]:
    fabric = Fabric(accelerator="cpu", devices=1)
    towers = Towers(build())
    model = fabric.setup(towers)
    torch.manual_seed(3)
    return towers, backward(fabric, model, micro_batches_of(sizes), loss_of_part(0, 1))


def in_one_graph(build: Build, sizes: Sequence[int]) -> tuple[nn.Module, Losses]:
    """Each micro-batch through the towers, then the loss over all of them, with all graphs in memory."""
    towers = Towers(build())
    torch.manual_seed(3)
    parts = [towers(*micro_batch) for micro_batch in micro_batches_of(sizes)]
    texts = tuple(torch.cat(pieces) for pieces in zip(*(part.texts for part in parts), strict=True))
    losses = loss_of_part(0, 1)(Features(torch.cat([part.image for part in parts]), texts, parts[0].logit_scale))
    losses.total.backward()
    return towers, losses


def test_towers_give_the_features_that_open_clip_gives() -> None:
    images, real, synthetic = batch()
    for clip in (vit().eval(), nano().eval()):
        features = Towers(clip)(images, real, synthetic)
        for text, tokens in zip(features.texts, (real, synthetic), strict=True):
            expected = clip(images, tokens)[:3]
            torch.testing.assert_close((features.image, text, features.logit_scale), expected)


@pytest.mark.parametrize("sizes", [(2, 2, 2, 2), (5, 3)])
def test_micro_batches_have_the_gradient_of_the_whole_batch(sizes: tuple[int, ...]) -> None:
    whole, expected = in_one_graph(vit, [PAIRS])
    towers, found = in_two_passes(vit, sizes)
    assert_close(gradients(towers), gradients(whole))
    assert "clip.logit_scale" in gradients(towers)
    for one, other in zip(found, expected, strict=True):
        assert one.item() == pytest.approx(other.item(), rel=1e-5)
        assert not one.requires_grad


@pytest.mark.parametrize("build", [nano, nano_with_drop_path])
def test_both_passes_draw_the_same_and_statistics_are_updated_once(build: Build) -> None:
    sizes = (4, 4)
    reference, expected = in_one_graph(build, sizes)
    random_state = torch.get_rng_state()
    towers, found = in_two_passes(build, sizes)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert found.total.item() == pytest.approx(expected.total.item(), rel=1e-5)
    assert_close(gradients(towers), gradients(reference))
    assert_close(statistics(towers), statistics(reference))
    assert all(count == 2 for name, count in statistics(towers).items() if name.endswith("num_batches_tracked"))


def nano_with_checkpointing() -> nn.Module:
    model = nano()
    model.set_grad_checkpointing()
    return model


@pytest.mark.parametrize("sizes", [(8,), (4, 4)])
def test_blocks_that_are_computed_again_for_the_gradient_count_once(sizes: tuple[int, ...]) -> None:
    reference, _ = in_one_graph(nano, sizes)
    towers, _ = in_two_passes(nano_with_checkpointing, sizes)
    assert_close(gradients(towers), gradients(reference))
    running = [{name: value for name, value in statistics(one).items() if not name.endswith("num_batches_tracked")}
               for one in (towers, reference)]  # fmt: skip
    assert_close(*running)
    assert {norm.momentum for norm in towers.modules() if isinstance(norm, nn.BatchNorm2d)} == {0.1}


def test_a_frozen_batch_norm_stays_frozen() -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    towers = Towers(nano())
    model = fabric.setup(towers)
    reference = copy.deepcopy(towers)
    for one in (towers, reference):
        one.clip.visual.eval()
    backward(fabric, model, micro_batches_of((4, 4)), loss_of_part(0, 1))
    loss_of_part(0, 1)(reference(*batch())).total.backward()
    assert_close(gradients(towers), gradients(reference))
    assert_close(statistics(towers), statistics(Towers(nano())))


def test_one_micro_batch_is_computed_once_and_several_twice_in_the_same_way() -> None:
    for sizes, expected in (((8,), 1), ((4, 4), 4)):
        fabric = Fabric(accelerator="cpu", devices=1)
        towers, with_gradients = Towers(vit()), []
        towers.register_forward_hook(lambda *_, calls=with_gradients: calls.append(torch.is_grad_enabled()))
        backward(fabric, fabric.setup(towers), micro_batches_of(sizes), loss_of_part(0, 1))
        # A compiled network draws different random numbers if gradients are disabled.
        assert with_gradients == [True] * expected


def in_process(rank: int) -> list[tuple[dict[str, np.ndarray], dict[str, np.ndarray], float, int]]:
    """For each case: gradients, running statistics, loss, and the number of averaged gradient buckets."""
    os.environ["LOCAL_RANK"] = str(rank)  # so that Fabric starts no processes of its own
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    answers = []
    for build, sizes in ((vit, (4,)), (vit, (2, 2)), (nano, (2, 2))):
        towers = Towers(build())
        model = fabric.setup(towers)
        averaged: list[int] = []

        def average(averaged: list[int], bucket: GradBucket) -> torch.futures.Future[Tensor]:
            averaged.append(bucket.index())
            return allreduce_hook(None, bucket)

        model._forward_module.register_comm_hook(averaged, average)
        own = micro_batches_of(sizes * 2)[rank * len(sizes) :][: len(sizes)]
        losses = backward(fabric, model, own, loss_of_part(rank, 2))
        answers.append((gradients(towers), statistics(towers), losses.total.item(), len(averaged)))
    return answers


def test_two_processes_have_the_gradient_of_one_and_average_it_once(tmp_path: Path) -> None:
    by_rank = run_world(in_process, 2, tmp_path)
    quarters = (2, 2, 2, 2)
    for case, (build, sizes) in enumerate(((vit, (PAIRS,)), (vit, (PAIRS,)), (nano, quarters))):
        reference, losses = in_one_graph(build, sizes)
        assert np.mean([answers[case][2] for answers in by_rank]) == pytest.approx(losses.total.item(), rel=1e-5)
        for answers in by_rank:
            assert_close(answers[case][0], gradients(reference))
    for rank, (one_pass, two_passes, with_statistics) in enumerate(by_rank):
        assert two_passes[3] == one_pass[3] > 0
        seen = Towers(nano())
        for micro_batch in micro_batches_of(quarters)[rank * 2 :][:2]:
            seen(*micro_batch)
        assert_close(with_statistics[1], statistics(seen))
