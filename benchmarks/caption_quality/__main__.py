"""`python -m benchmarks.caption_quality`."""

from benchmarks.caption_quality.caption_quality import CaptionQualityConfig, measure_caption_quality
from mobileclip_dense.command import run_with_settings

if __name__ == "__main__":
    run_with_settings(CaptionQualityConfig, measure_caption_quality, "python -m benchmarks.caption_quality")
