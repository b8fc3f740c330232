"""`mobileclip-dense COMMAND ...`: from a command's name to its settings and its function."""

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, TypeVar

import tyro

from mobileclip_dense.command import run_command
from mobileclip_dense.config import (
    AttentionDistanceConfig,
    CaptionsConfig,
    ConvertWeightsConfig,
    DataCheckConfig,
    EvaluateConfig,
    FeaturesConfig,
    FinetuneConfig,
    JoinConfig,
    PretrainConfig,
    PruneConfig,
    ReinforceConfig,
    ScenesConfig,
)

Settings = TypeVar("Settings")


def _scenes(arguments: list[str], prog: str) -> None:
    from mobileclip_dense.data.scenes.writer import write_scenes

    write_scenes(tyro.cli(ScenesConfig, prog=prog, args=arguments))


def _join(arguments: list[str], prog: str) -> None:
    config = tyro.cli(JoinConfig, prog=prog, args=arguments)
    from mobileclip_dense.data.captioned.join import join

    join(config)


def _pretrain(arguments: list[str], prog: str) -> None:
    from mobileclip_dense.recipes.pretraining import RECIPES

    config: PretrainConfig = _from_recipe(RECIPES, arguments, prog)
    from mobileclip_dense.pretrain.loop import pretrain
    from mobileclip_dense.processes import leave_processes

    pretrain(config)
    leave_processes()


def _reinforce(arguments: list[str], prog: str) -> None:
    config = tyro.cli(ReinforceConfig, prog=prog, args=arguments)
    from mobileclip_dense.pretrain.reinforce import reinforce

    reinforce(config)


def _finetune(arguments: list[str], prog: str) -> None:
    from mobileclip_dense.recipes.finetuning import RECIPES

    config: FinetuneConfig = _from_recipe(RECIPES, arguments, prog)
    from mobileclip_dense.dense.training.train import finetune
    from mobileclip_dense.processes import leave_processes

    finetune(config)
    leave_processes()


def _evaluate(arguments: list[str], prog: str) -> None:
    config = tyro.cli(EvaluateConfig, prog=prog, args=arguments)
    from mobileclip_dense.dense.evaluation.evaluate import evaluate

    evaluate(config)


def _prune(arguments: list[str], prog: str) -> None:
    config = tyro.cli(PruneConfig, prog=prog, args=arguments)
    from mobileclip_dense.dense.prune import prune

    prune(config)


def _convert_weights(arguments: list[str], prog: str) -> None:
    config = tyro.cli(ConvertWeightsConfig, prog=prog, args=arguments)
    from mobileclip_dense.models.convert import convert_weights

    convert_weights(config)


def _data(arguments: list[str], prog: str) -> None:
    if arguments[:1] not in (["check"], ["-h"], ["--help"]):
        raise ValueError(f"{prog}: found {' '.join(arguments[:1]) or 'nothing'}, expected `{prog} check NAME PATH`")
    from mobileclip_dense.data.labelled.check import check_data, describe_names

    description = f"{DataCheckConfig.__doc__}\n\n{describe_names()}"
    config = tyro.cli(DataCheckConfig, prog=f"{prog} check", args=arguments[1:] or ["--help"], description=description)
    check_data(config)


_Analysis = (
    Annotated[CaptionsConfig, tyro.conf.subcommand("captions")]
    | Annotated[AttentionDistanceConfig, tyro.conf.subcommand("attention-distance")]
    | Annotated[FeaturesConfig, tyro.conf.subcommand("features")]
)


def _analyze(arguments: list[str], prog: str) -> None:
    config = tyro.cli(_Analysis, prog=prog, args=arguments)
    if isinstance(config, CaptionsConfig):
        from mobileclip_dense.analysis.captions import analyze_captions

        analyze_captions(config)
    elif isinstance(config, AttentionDistanceConfig):
        from mobileclip_dense.analysis.attention_distance import analyze_attention_distance

        analyze_attention_distance(config)
    else:
        from mobileclip_dense.analysis.features import analyze_features

        analyze_features(config)


def _from_recipe(recipes: Mapping[str, Callable[[], Settings]], arguments: list[str], prog: str) -> Settings:
    # The chosen one alone where one is chosen; otherwise those worth listing: each may have a twin NAME-debug.
    named = [name for name in arguments[:1] if name in recipes]
    listed = named or [name for name in recipes if not name.endswith("-debug")]
    choices = {name: (inspect.cleandoc(recipes[name].__doc__ or ""), recipes[name]()) for name in listed}
    description = (
        "A recipe sets every flag; flags override it. NAME-debug: two steps of a published one, to smoke-test."
    )
    return tyro.extras.overridable_config_cli(choices, prog=prog, args=arguments, description=description)


COMMANDS: dict[str, tuple[Callable[[list[str], str], None], str]] = {
    "scenes": (_scenes, "generate captioned, labelled scenes in the formats of the real data sets"),
    "reinforce": (_reinforce, "store teachers' embeddings and synthetic captions beside images (DataCompDR)"),
    "join": (_join, "join DataComp's images and DataCompDR's reinforcements by uid"),
    "data": (_data, "check NAME PATH: what of a labelled data set is there, what is missing, what cannot be used"),
    "pretrain": (_pretrain, "pretrain an encoder with its text tower on captioned images (CLIP)"),
    "finetune": (_finetune, "fine-tune for segmentation or depth through mmsegmentation"),
    "evaluate": (_evaluate, "measure a fine-tuned run on held-out images, with pictures of where it fails"),
    "prune": (_prune, "remove channels and attention heads of a fine-tuned run, down to a size"),
    "analyze": (_analyze, "captions of data sets, reach of attention, features of a run: pages and pictures"),
    "convert-weights": (_convert_weights, "convert weights of Apple, open_clip or a run for stock open_clip"),
}

_USAGE = """usage: mobileclip-dense COMMAND [-h] ...

Strong dense vision for phones: CLIP-pretrained mobile encoders, from captioned images to a verified phone model.

commands:
{commands}

After training, from a checkout of the project:
  python -m export.to_onnx RUN         ONNX: fp32, fp16 or int8, checked against PyTorch
  python -m export.to_coreml RUN       Core ML: fp16, fp32 or compressed, run and checked without a Mac
  python -m export.verify ARTIFACT     check an artifact's files and its numbers
  python -m benchmarks.latency ARTIFACT...    latency in ONNX Runtime
  python -m benchmarks.compare         our segmenters against large ones: a table and two plots from result files
  python -m benchmarks.coreml_device ARTIFACT...    Core ML on a Mac or an attached iPhone, and where operations run
  python -m benchmarks.xcode_report REPORT --artifact ARTIFACT    a performance report of Xcode as a result file
  python -m benchmarks.report          one page with curves, pictures and tables
  python -m benchmarks.onnx_rivals RUN    our ONNX exports against those of timm, torch and the tutorials
  python -m benchmarks.data_path SHARDS    loading of reinforced samples against the plain way
  python -m benchmarks.reinforce DATA  reinforcing against the teachers' own forward passes
  python -m benchmarks.training_rival --data SHARDS    a training step against open_clip's trainer
  python -m benchmarks.training_memory    pace and memory of a training step against batch size
  python -m benchmarks.dense_training    a step of fine-tuning against mmsegmentation's settings
  python -m benchmarks.caption_quality    the paper's comparison of caption qualities, reproduced small
  python -m benchmarks.mil_executor ARTIFACT...    time and accuracy of running Core ML programs without a Mac
  python -m benchmarks.demo_throughput ARTIFACT    what a demo costs beside the model
  python -m apps.segment ARTIFACT INPUT...    classes of photographs, folders, videos, a camera
  python -m apps.depth ARTIFACT INPUT...      their depth, as colours, millimetres and points
  python -m apps.classify ARTIFACT INPUT... --prompts TEXT...    which text fits

`mobileclip-dense COMMAND --help` explains the flags of a command."""


def main() -> None:
    """Entry point of the `mobileclip-dense` script."""
    arguments = sys.argv[1:]
    usage = _USAGE.format(commands="\n".join(f"  {name:<15} {text}" for name, (_, text) in COMMANDS.items()))
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage)
        raise SystemExit(0 if arguments else 2)
    name = arguments[0]
    if name not in COMMANDS:
        print(f"error: command: found {name!r}, expected one of {', '.join(COMMANDS)}", file=sys.stderr)
        raise SystemExit(2)
    run_command(lambda: COMMANDS[name][0](arguments[1:], f"mobileclip-dense {name}"))


if __name__ == "__main__":
    main()
