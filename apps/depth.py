"""`python -m apps.depth ARTIFACT INPUT...`: depth of photographs and videos."""

from mobileclip_dense.apps.depth import DepthConfig, depth
from mobileclip_dense.command import run_with_settings

if __name__ == "__main__":
    run_with_settings(DepthConfig, depth, "python -m apps.depth")
