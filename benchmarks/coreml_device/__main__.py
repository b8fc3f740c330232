"""`python -m benchmarks.coreml_device`."""

from benchmarks.coreml_device.measure import CoreMLDeviceConfig, measure_on_device
from mobileclip_dense.command import run_with_settings

if __name__ == "__main__":
    run_with_settings(CoreMLDeviceConfig, measure_on_device, "python -m benchmarks.coreml_device")
