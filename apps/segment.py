"""`python -m apps.segment ARTIFACT INPUT...`: classes drawn over photographs and videos."""

from mobileclip_dense.apps.segment import SegmentConfig, segment
from mobileclip_dense.command import run_with_settings

if __name__ == "__main__":
    run_with_settings(SegmentConfig, segment, "python -m apps.segment")
