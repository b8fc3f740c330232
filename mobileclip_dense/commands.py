"""The table of commands: from a command's name to its settings and its function, both imported when it runs."""

from collections.abc import Mapping
from dataclasses import dataclass

from mobileclip_dense.artifact.targets import TARGETS


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command of `mobileclip-dense`.

    Attributes:
        settings: `module:class`, the dataclass of its flags. action: `module:function`, called with an instance.
        summary: one line for `--help`. extra: the extra of pyproject.toml that installs what it needs; "" for none.
        recipes: `module:table`, named settings to start from. details: `module:function`, gives text for its help.
    """

    settings: str
    action: str
    summary: str
    extra: str = ""
    recipes: str = ""
    details: str = ""


_CONFIG = "mobileclip_dense.config"
_PHOTOGRAPHS = {
    "segment": Command(
        settings="mobileclip_dense.apps.segment:SegmentConfig",
        action="mobileclip_dense.apps.segment:segment",
        summary="find the classes of photographs and videos",
    ),
    "depth": Command(
        settings="mobileclip_dense.apps.depth:DepthConfig",
        action="mobileclip_dense.apps.depth:depth",
        summary="estimate the depth of photographs and videos, in metres",
    ),
    "classify": Command(
        settings="mobileclip_dense.apps.classify:ClassifyConfig",
        action="mobileclip_dense.apps.classify:classify",
        summary="find which of several texts describes a photograph best",
    ),
}
_ARTIFACTS = {
    "verify": Command(
        settings=f"{_CONFIG}.export:VerifyConfig",
        action="mobileclip_dense.deploy.verify:verify",
        summary="check the files and the outputs of an artifact",
        extra="export",
    ),
    "latency": Command(
        settings="mobileclip_dense.apps.latency:LatencyConfig",
        action="mobileclip_dense.apps.latency:measure_latency",
        summary="measure latency and peak memory on this machine",
    ),
    "report": Command(
        settings="mobileclip_dense.report.report:ReportConfig",
        action="mobileclip_dense.report.report:report",
        summary="write one page about runs, artifacts and results",
        extra="report",
    ),
}
_DATA = {
    "scenes": Command(
        settings=f"{_CONFIG}:ScenesConfig",
        action="mobileclip_dense.data.scenes.writer:write_scenes",
        summary="generate captioned, labelled scenes to train on",
        extra="train",
    ),
    "data check": Command(
        settings=f"{_CONFIG}:DataCheckConfig",
        action="mobileclip_dense.data.labelled.check:check_data",
        summary="check a labelled data set before training",
        details="mobileclip_dense.data.labelled.check:describe_names",
        extra="train",
    ),
    "join": Command(
        settings=f"{_CONFIG}:JoinConfig",
        action="mobileclip_dense.data.captioned.join:join",
        summary="join DataComp's images and DataCompDR's reinforcements",
        extra="train",
    ),
    "reinforce": Command(
        settings=f"{_CONFIG}:ReinforceConfig",
        action="mobileclip_dense.pretraining.reinforce:reinforce",
        summary="store teacher embeddings and captions beside images",
        extra="train",
    ),
}
_TRAINING = {
    "pretrain": Command(
        settings=f"{_CONFIG}:PretrainConfig",
        action="mobileclip_dense.pretraining.loop:pretrain",
        recipes="mobileclip_dense.recipes.pretraining:RECIPES",
        summary="pretrain an encoder and a text tower on captioned images",
        extra="train",
    ),
    "finetune": Command(
        settings=f"{_CONFIG}:FinetuneConfig",
        action="mobileclip_dense.dense.training.train:finetune",
        recipes="mobileclip_dense.recipes.finetuning:RECIPES",
        summary="fine-tune an encoder for segmentation, depth or detection",
        extra="train",
    ),
    "evaluate": Command(
        settings=f"{_CONFIG}:EvaluateConfig",
        action="mobileclip_dense.dense.evaluation.evaluate:evaluate",
        summary="measure a fine-tuned run on held-out images",
        extra="train",
    ),
    "prune": Command(
        settings=f"{_CONFIG}:PruneConfig",
        action="mobileclip_dense.dense.prune:prune",
        summary="prune channels and attention heads of a fine-tuned run",
        extra="train",
    ),
    "convert-weights": Command(
        settings=f"{_CONFIG}:ConvertWeightsConfig",
        action="mobileclip_dense.models.convert:convert_weights",
        summary="convert weights of Apple, open_clip or a run for open_clip",
        extra="train",
    ),
    "analyze captions": Command(
        settings=f"{_CONFIG}:CaptionsConfig",
        action="mobileclip_dense.analysis.captions:analyze_captions",
        summary="write a page about the captions of shards",
        extra="train",
    ),
    "analyze attention-distance": Command(
        settings=f"{_CONFIG}:AttentionDistanceConfig",
        action="mobileclip_dense.analysis.attention_distance:analyze_attention_distance",
        summary="plot how far attention reaches, by layer and head",
        extra="train",
    ),
    "analyze features": Command(
        settings=f"{_CONFIG}:FeaturesConfig",
        action="mobileclip_dense.analysis.features:analyze_features",
        summary="draw the principal components of a feature pyramid",
        extra="train",
    ),
}


def command_groups() -> dict[str, Mapping[str, Command]]:
    """All commands by name, in groups with a heading; an `export` command for each registered target that has one."""
    exports = {
        f"export {target.runtime}": Command(
            settings=target.settings, action=target.export, summary=target.summary, extra="export"
        )
        for target in TARGETS.values()
        if target.settings is not None and target.export is not None
    }
    return {
        "photographs": _PHOTOGRAPHS,
        "phone models": exports | _ARTIFACTS,
        "data": _DATA,
        "training": _TRAINING,
    }
