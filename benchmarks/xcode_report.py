"""`python -m benchmarks.xcode_report`."""

from benchmarks.coreml_device.xcode_report import XcodeReportConfig, import_report
from mobileclip_dense.command import run_with_settings

if __name__ == "__main__":
    run_with_settings(XcodeReportConfig, import_report, "python -m benchmarks.xcode_report")
