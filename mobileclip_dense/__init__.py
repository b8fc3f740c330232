"""Strong dense vision for phones: CLIP pretraining, dense fine-tuning, verified export, and prediction.

    import mobileclip_dense as mcd

    mcd.load("sample:segment").predict("street.jpg").overlay()

Importing the package is cheap: every public name is imported from `mobileclip_dense.api` when it is first used, and
torch only when a function needs it. Importing it also turns off the telemetry of the libraries underneath.
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mobileclip_dense.api import (
        Depth,
        Detections,
        Embedding,
        EvaluateConfig,
        FinetuneConfig,
        Labels,
        Model,
        PretrainConfig,
        Segmentation,
        create_clip,
        create_config,
        create_encoder,
        evaluate,
        export,
        finetune,
        fuse,
        list_encoders,
        list_heads,
        list_recipes,
        load,
        pretrain,
        verify,
    )

# Each library reads its variable when it is imported, so they are set here, before any of them. The packages beside
# this one (apps, benchmarks, export, tests) import it first, and worker processes inherit the environment. A value that
# the user has set stays.
NO_TELEMETRY = {
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime: device id and a queue of events in the user's cache folder
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray: a report of each cluster
    "HF_HUB_DISABLE_TELEMETRY": "1",  # Hugging Face: versions of other libraries beside each download
}
for _name, _value in NO_TELEMETRY.items():
    os.environ.setdefault(_name, _value)

__all__ = [
    "Depth",
    "Detections",
    "Embedding",
    "EvaluateConfig",
    "FinetuneConfig",
    "Labels",
    "Model",
    "PretrainConfig",
    "Segmentation",
    "create_clip",
    "create_config",
    "create_encoder",
    "evaluate",
    "export",
    "finetune",
    "fuse",
    "list_encoders",
    "list_heads",
    "list_recipes",
    "load",
    "pretrain",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("mobileclip-dense")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("mobileclip_dense.api"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
