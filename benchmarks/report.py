"""`python -m benchmarks.report`: an HTML page about runs, artifacts and results."""

from mobileclip_dense.command import run_with_settings
from mobileclip_dense.report.report import ReportConfig, report

if __name__ == "__main__":
    run_with_settings(ReportConfig, report, "python -m benchmarks.report")
