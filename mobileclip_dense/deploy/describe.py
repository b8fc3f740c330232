"""The artifact record (artifact.json) of an exported model."""

from pathlib import Path

from mobileclip_dense.artifact.artifact import Artifact, TensorSpec
from mobileclip_dense.artifact.palette import class_palette
from mobileclip_dense.artifact.versions import versions_of
from mobileclip_dense.config import FinetuneConfig, PretrainConfig
from mobileclip_dense.deploy.prepared import Prepared

_LICENCE = "Apache-2.0 for the code; the weights carry the licence of what they were trained from"
_MEANINGS = {
    "logits": "class scores at a quarter of the resolution, before the softmax",
    "class_map": "index of the most likely class",
    "depth_m": "distance along the optical axis, metres",
    "image_embedding": "unit vector in the space shared by images and texts",
    "text_embedding": "unit vector in the space shared by images and texts",
}


def describe(
    prepared: Prepared, *, runtime: str, precision: str, taken: TensorSpec, libraries: tuple[str, ...]
) -> Artifact:
    """The artifact record of an exported model with the input `taken`. Parity figures are added later."""
    config, record = prepared.run.config, prepared.run.record
    outputs = tuple(
        TensorSpec(name=name, shape=(1, *prepared.golden[name].shape[1:]), dtype=str(prepared.golden[name].dtype),
                   meaning=_MEANINGS[name], flexible=taken.flexible)
        for name in prepared.outputs
    )  # fmt: skip
    size = "x".join(map(str, prepared.golden["input"].shape[1:3]))
    fit = "resize the short side and crop the centre" if prepared.task == "embed-image" else "resize"
    class_names = tuple(record.get("class_names", ()))
    return Artifact(
        name=f"{_stem(prepared)}-{size}-{precision}.{runtime}",
        runtime=runtime,
        precision=precision,
        task=prepared.task,
        architecture=prepared.run.architecture,
        input=taken,
        outputs=outputs,
        preprocessing="tokens of CLIP's byte-pair encoding, as tokenizer.json gives them"
        if prepared.task == "embed-text"
        else f"{fit} to {size} (bilinear, antialiased); the model does the rest",
        class_names=class_names,
        palette=tuple(class_palette(len(class_names))),
        max_depth_m=config.max_depth_m if isinstance(config, FinetuneConfig) and prepared.task == "depth" else None,
        logit_scale=prepared.logit_scale,
        num_parameters=sum(p.numel() for p in prepared.network.parameters()),
        parity={"fusion_relative_error": prepared.fusion_error},
        parent={"run": _folder_name(prepared.run.folder), "weights_sha256": record["weights_sha256"]},
        versions=versions_of("torch", *libraries),
        licence=_LICENCE,
    )


def _stem(prepared: Prepared) -> str:
    """The name of the artifact without size and precision: network, task and data.

    The default head, semantic_fpn, is not part of the name.
    """
    config = prepared.run.config
    data = Path(config.data[0]) if isinstance(config, PretrainConfig) else config.data
    network = prepared.run.architecture.replace("-semantic_fpn", "")
    return f"{network}-{prepared.task}-{_folder_name(data)}"


def _folder_name(path: Path) -> str:
    """The name of a folder, also if the path is `.` or `..`."""
    return path.name if path.name not in ("", "..") else path.resolve().name
