"""`python -m benchmarks.compare`."""

from benchmarks.compare.compare import CompareConfig, compare
from mobileclip_dense.command import run_with_settings

if __name__ == "__main__":
    run_with_settings(CompareConfig, compare, "python -m benchmarks.compare")
