"""`python -m export.to_onnx RUN`: a run as ONNX artifacts."""

from mobileclip_dense.command import run_with_settings
from mobileclip_dense.config.export import ToOnnxConfig
from mobileclip_dense.deploy.onnx.exporter import to_onnx

if __name__ == "__main__":
    run_with_settings(ToOnnxConfig, to_onnx, "python -m export.to_onnx")
