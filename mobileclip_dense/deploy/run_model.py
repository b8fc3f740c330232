"""Runs as models that predict in PyTorch, at the geometry of their artifacts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from mobileclip_dense.artifact.artifact import TensorSpec
from mobileclip_dense.config import FinetuneConfig, PretrainConfig
from mobileclip_dense.dense.model import build_from_run
from mobileclip_dense.deploy.describe import describe
from mobileclip_dense.deploy.prepare import prepare_model
from mobileclip_dense.deploy.prepared import Prepared, predict
from mobileclip_dense.deploy.towers import prepare_towers
from mobileclip_dense.run.folder import Run
from mobileclip_dense.runtime.model import ArtifactModel, ImageLike, Model, read_pixels
from mobileclip_dense.runtime.predictions import Detections
from mobileclip_dense.runtime.predictor import LoadedModel

_PIXELS = "RGB image, 0..255"


def load_run_model(run: Run, *, device: str = "cpu") -> Model:
    """The model of a run, fused, at the input size it was trained with.

    Args:
        device: of torch, such as cpu or cuda.

    Raises:
        ValueError: the weights do not fit the config, fusion is not exact, or the device is not available.
    """
    target = _torch_device(device)
    config = run.config
    if isinstance(config, FinetuneConfig) and config.task == "detect":
        return DetectorModel(run, config, target)
    if isinstance(config, FinetuneConfig):
        blank = np.zeros((1, *config.crop_size_px, 3), np.uint8)
        model = build_from_run(config, run).eval()
        return ArtifactModel(_on_device(prepare_model(model, run, config, blank), target))
    return _load_towers(run, config, target)


def _load_towers(run: Run, config: PretrainConfig, device: torch.device) -> ArtifactModel:
    blank = np.zeros((1, config.image_size_px, config.image_size_px, 3), np.uint8)
    image, text = prepare_towers(run, config, blank, [""])
    network = text.network.to(device)

    def embed(prompts: tuple[str, ...]) -> npt.NDArray[np.float32]:
        assert text.tokenizer is not None
        tokens = text.tokenizer(list(prompts)).numpy()
        return predict(network, tokens, text.outputs, device)[text.outputs[0]]

    return ArtifactModel(_on_device(image, device), embed)


def _on_device(prepared: Prepared, device: torch.device) -> LoadedModel:
    taken = TensorSpec(name="image", shape=(1, *prepared.size_px, 3), dtype="uint8", meaning=_PIXELS)
    described = describe(prepared, runtime="torch", precision="fp32", taken=taken, libraries=())
    network = prepared.network.to(device)
    return LoadedModel(
        folder=prepared.run.folder,
        artifact=described,
        predict=lambda images: predict(network, images, prepared.outputs, device),
        backend=f"torch {device}",
    )


class DetectorModel:
    """Mask R-CNN of a fine-tuning run; see `runtime.model.Model`. Each image keeps its shape, as in evaluation."""

    task = "detect"

    def __init__(self, run: Run, config: FinetuneConfig, device: torch.device):
        self.class_names: tuple[str, ...] = tuple(run.record["class_names"])
        self._name, self._device = run.folder.name, device
        self._model: nn.Module = build_from_run(config, run).eval().to(device)

    @torch.inference_mode()
    def predict(self, image: ImageLike, prompts: Sequence[str] | None = None) -> Detections:
        """See `Model.predict`."""
        if prompts is not None:
            raise ValueError(f"{self._name}: prompts: found some, but a model for detect takes none")
        pixels = read_pixels(image)
        planes = torch.from_numpy(pixels.copy()).permute(2, 0, 1).to(self._device) / 255
        (found,) = self._model([planes], mode="predict")
        values: dict[str, Any] = {name: tensor.cpu().numpy() for name, tensor in found.items()}
        return Detections(
            image=pixels, boxes=values["boxes"], labels=values["labels"] - 1, scores=values["scores"],
            masks=values["masks"], class_names=self.class_names,
        )  # fmt: skip


def _torch_device(name: str) -> torch.device:
    try:
        return torch.zeros(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
        raise ValueError(f"device: found {name!r}, which torch does not offer here ({str(error).splitlines()[0]}); "
                         f"expected cpu, or cuda on a machine with a GPU") from None  # fmt: skip
