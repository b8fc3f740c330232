"""The registry of targets: the runtimes that a run can be exported to."""

from dataclasses import dataclass

from mobileclip_dense.artifact.outputs import OutputKind


@dataclass(frozen=True, kw_only=True)
class Target:
    """A runtime, known to files and programs by its name. Import paths keep heavy libraries out until they are used.

    Attributes:
        runtime: its name in artifact.json and in the names of folders.
        model_file: path of the model inside an artifact's folder; a folder where the format is one.
        reports: other files that its exporter writes beside it.
        model: `module:function`, called with the path of the model and the `Artifact`; gives a `runtime.Predictor`.
        inspect: `module:function`, called with the same; returns a `runtime.predictor.Report` about the model file and
            raises ValueError if it does not match the artifact. None: there is nothing to inspect.
        settings: `module:class`, the settings of its export, an `ExportConfig`. export: `module:function`, called with
            them; returns the folders of the artifacts. None: `mobileclip-dense export` does not offer it.
        summary: one line about the export, for `--help`.
        libraries: distributions whose versions a latency result records.
        platform: value of `sys.platform` that runs the models; None: any. Elsewhere `model` may emulate them.
    """

    runtime: str
    model_file: str
    reports: tuple[str, ...] = ()
    model: str
    inspect: str | None = None
    settings: str | None = None
    export: str | None = None
    summary: str = ""
    libraries: tuple[str, ...] = ()
    platform: str | None = None


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
        model_file="model.onnx",
        reports=("int8.json",),
        model="mobileclip_dense.runtime.onnx_model:load_model",
        settings="mobileclip_dense.config.export:ToOnnxConfig",
        export="mobileclip_dense.deploy.onnx.exporter:to_onnx",
        summary="export a run to ONNX: fp32, fp16 or int8",
        libraries=("onnxruntime",),
    )
)
register_target(
    Target(
        runtime="coreml",
        model_file="model.mlpackage",
        reports=("neural_engine.json",),
        model="mobileclip_dense.deploy.coreml.predictor:load_model",
        inspect="mobileclip_dense.deploy.coreml.inspect:verify_program",
        settings="mobileclip_dense.config.export:ToCoreMLConfig",
        export="mobileclip_dense.deploy.coreml.exporter:to_coreml",
        summary="export a run to Core ML: fp16, fp32 or compressed weights",
        libraries=("coremltools",),
        platform="darwin",
    )
)


def artifact_output() -> OutputKind:
    """An artifact of any target that is registered by now, as a folder that may be replaced."""
    models = [pattern for target in TARGETS.values() for pattern in (target.model_file, f"{target.model_file}/*")]
    reports = [name for target in TARGETS.values() for name in target.reports]
    return OutputKind(
        name="an artifact",
        markers=("artifact.json",),
        contents=("artifact.json", "golden.npz", "tokenizer.json", *models, *reports),
    )
