"""The registry of targets: the runtimes that a run can be exported to."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Target:
    """A runtime, known to files and programs by its name. Import paths keep heavy libraries out until they are used.

    Attributes:
        runtime: its name in artifact.json and in the names of folders.
        label: its name for people.
        model_file: path of the model inside an artifact's folder; a folder where the format is one.
        model: `module:function`, called with the path of the model and the `Artifact`; gives a `runtime.Predictor`.
        inspect: `module:function`, called with the same; says in one line what the model consists of, and raises
            ValueError if it is not what the artifact says. None: there is nothing to inspect.
    """

    runtime: str
    label: str
    model_file: str
    model: str
    inspect: str | None = None


TARGETS: dict[str, Target] = {}


def register_target(target: Target) -> None:
    """Add a target.

    Raises:
        ValueError: another one has its name.
    """
    if TARGETS.setdefault(target.runtime, target) != target:
        raise ValueError(f"runtime: found {target.runtime!r}, which is registered already; choose another name")


register_target(
    Target(
        runtime="onnx",
        label="ONNX",
        model_file="model.onnx",
        model="mobileclip_dense.runtime.onnx_model:load_model",
    )
)
register_target(
    Target(
        runtime="coreml",
        label="Core ML",
        model_file="model.mlpackage",
        model="mobileclip_dense.deploy.coreml.mil.predictor:load_model",
        inspect="mobileclip_dense.deploy.coreml.inspect:inspect",
    )
)
