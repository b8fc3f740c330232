"""The section of published figures."""

from benchmarks.compare.published import IPHONE, PUBLISHED, PUBLISHED_GAINS, Published
from benchmarks.results_page.markdown import table


def published_figures() -> list[str]:
    """Figures of others, none of which was measured here."""
    accuracies = [one for one in PUBLISHED if one.figure == "miou_percent"]
    latencies = [one for one in PUBLISHED if one.figure == "latency_ms"]
    return [
        "Others published these figures. This project reproduced none of them. They are for orientation only: models, "
        "data and devices differ from those above.",
        table(["model", "parameters", "mIoU % on ADE20K", "conditions", "reference"],
              [_row(one) for one in accuracies]),
        f"Latency of image towers on an {IPHONE}:",
        table(["model", "parameters", "ms", "conditions", "reference"], [_row(one) for one in latencies]),
        "Improvements over another pretraining:",
        table(["model", "%", "figure", "reference"],
              [[gain.model, f"{gain.percent:g}", gain.what, gain.reference] for gain in PUBLISHED_GAINS]),
    ]  # fmt: skip


def _row(one: Published) -> list[str]:
    parameters = "-" if one.num_parameters is None else f"{one.num_parameters / 1e6:.1f} M"
    return [one.model, parameters, f"{one.value:g}", one.what, one.reference]
