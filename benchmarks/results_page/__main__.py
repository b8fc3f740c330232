"""`python -m benchmarks.results_page`."""

from benchmarks.results_page.page import ResultsPageConfig, write_results_page
from mobileclip_dense.command import run_with_settings

if __name__ == "__main__":
    run_with_settings(ResultsPageConfig, write_results_page, "python -m benchmarks.results_page")
