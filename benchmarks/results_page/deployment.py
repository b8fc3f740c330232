"""Sections about exports and demos."""

from typing import Any

from benchmarks.results_page.markdown import bullets, milliseconds, picture, table
from benchmarks.results_page.segmenters import ABOUT_ACCURACY, exports_table
from benchmarks.results_page.sources import Sources

DEMO = "demo.json"
THROUGHPUT = "demo-throughput-mci2.json"
RIVALS = "onnx-rivals-mci2.json"
EXECUTOR = "mil-executor-mci2.json"
STARTUP = "startup.json"


def whole_line(sources: Sources) -> list[str]:
    """One `make demo`: exports, and whether pretraining helped."""
    result = sources.read(DEMO)
    clip = result["runs"]["clip"]
    return [
        "`make demo` generates captioned scenes, pretrains the nano MCi on them, fine-tunes it for segmentation and "
        "depth, exports, verifies and measures the result.",
        sources.provenance(DEMO),
        exports_table(result),
        ABOUT_ACCURACY,
        "Does pretraining on captions help on held-out scenes? The report compares runs from the pretrained encoder "
        "with runs from scratch, over seeds:",
        bullets(verdict["sentence"] for verdict in result["verdicts"]),
        f"What this does not show: a statistical test, or the quality of a full training. One pretraining run "
        f"({clip['settings']['steps']} steps) stands behind all pretrained runs, there are "
        f"{len(result['verdicts'][0]['pretrained'])} seeds, and the spread between that few seeds is exceeded by "
        "chance in about one case of nine. On images this small, int8 gains a nano model little. The picture is from "
        "such a demo:",
        picture("demo.png", "Held-out scenes, their segmentation and their depth, from one make demo"),
    ]


def demo_throughput(sources: Sources) -> list[str]:
    """Share of the model in the time of a demo."""
    result = sources.read(THROUGHPUT)
    stages = [[stage, milliseconds(latency)] for stage, latency in result["latency_ms"].items()]
    return [
        f"`mobileclip-dense segment` processed {result['num_frames']} photographs ({result['photographs']}) with "
        f"`{result['artifact']}` in {result['wall_time_s']:.1f} s, {result['wall_ms_per_frame']:.1f} ms each. Files "
        "are read and pictures are written while the model runs.",
        sources.provenance(THROUGHPUT),
        table(["stage", "p50 / p90 ms"], [*stages, ["model alone", milliseconds(result["model_alone_ms"])]]),
        f"The model takes {result['model_share_percent']:.0f} % of the wall time as measured inside the demo, and "
        f"{result['model_alone_share_percent']:.0f} % if its time is measured with nothing beside it (last row).",
        "What this does not show: a small model. The smaller the model, the larger the share of reading and drawing.",
    ]


def onnx_exports(sources: Sources) -> list[str]:
    """MCi2's image tower: this project's exports against those of others."""
    result = sources.read(RIVALS)
    height, width = result["size_px"]
    rows = [
        [_EXPORTS.get(name, name), milliseconds(latency), f"{result['size_bytes'][name] / 1e6:.1f}"]
        for name, latency in result["latency_ms"].items()
    ]
    return [
        f"The image tower of {result['encoder']} at {height}x{width} px with {result['threads']} threads in ONNX "
        "Runtime. All exports have the same weights and run in turn.",
        sources.provenance(RIVALS),
        table(["export", "p50 / p90 ms", "MB"], rows),
        f"This project's fp32 export is {result['fp32_against_best_rival']:.2f}x as fast as the best other fp32 "
        f"export. It reaches {result['fp32_share_of_gemm_percent']:.0f} % of the rate of a large matrix product "
        f"({result['fp32_gflop_per_s']:.0f} of {result['gemm_gflop_per_s']:.0f} GFLOP/s). Its int8 export is "
        f"{result['int8_against_our_fp32']:.2f}x as fast as its fp32 export, {result['int8_against_tutorial']:.2f}x as "
        f"fast as `quantize_static` as in the tutorial ({result['int8_against_preprocessed']:.2f}x with the "
        f"tutorial's preprocessing), and {result['int8_size_percent']:.0f} % of the size of fp32.",
        "What this does not show: accuracy. Quantization by this project leaves nodes in fp32 that are not faster in "
        "int8, so that its file is larger than the tutorial's.",
    ]


_EXPORTS = {
    "timm": "timm's ONNX export",
    "fused": "torch.onnx of the fused tower",
    "tutorial int8": "quantize_static, as in the tutorial",
    "preprocessed int8": "quantize_static, after its preprocessing",
    "ours fp32": "this project, fp32",
    "ours int8": "this project, int8",
}


def mil_executor(sources: Sources) -> list[str]:
    """Core ML programs run without a Mac."""
    result = sources.read(EXECUTOR)
    rows = [[name, f"{figures['run_s']:.2f}", f"{figures['load_s']:.2f}", *_agreement(figures)]
            for name, figures in result["artifacts"].items()]  # fmt: skip
    return [
        "The export of a Core ML artifact runs the saved program with this project's own executor of MIL programs "
        "and compares its outputs with those of PyTorch.",
        sources.provenance(EXECUTOR),
        table(["artifact", "s per image", "s to load", "relative error", "pixels of PyTorch's class",
               "mean difference of depth"], rows),
        f"The process held {result['peak_memory_mb']} MB at its peak.",
        "What this does not show: latency on a phone, or the rounding of Apple's own runtime. No measured figure "
        "of this page comes from a Mac or a phone.",
    ]  # fmt: skip


def _agreement(figures: dict[str, Any]) -> list[str]:
    pixels, depth = figures.get("golden_agreement_percent"), figures.get("abs_rel_percent")
    return [
        f"{figures['fp16_relative_error']:.1e}",
        "-" if pixels is None else f"{pixels:.2f} %",
        "-" if depth is None else f"{depth:.3f} %",
    ]


def startup(sources: Sources) -> list[str]:
    """The start of the package and of its commands."""
    result = sources.read(STARTUP)
    rows = [[f"`{program}`", f"{wall['p50']:.0f} / {wall['p90']:.0f}"] for program, wall in result["wall_ms"].items()]
    return [
        "Wall time of new processes, started in turn. `python -c pass` is the interpreter alone.",
        sources.provenance(STARTUP),
        table(["program", "p50 / p90 ms"], rows),
        f"`import mobileclip_dense` takes {result['import_ms']:.0f} ms beyond the interpreter: it imports no library. "
        "Libraries are imported when a function or a command needs them.",
        "What this does not show: the first start after an installation, which reads all files from the disk.",
    ]
