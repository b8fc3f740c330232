"""`python -m export.to_coreml RUN`: a run as Core ML artifacts."""

from mobileclip_dense.command import run_with_settings
from mobileclip_dense.config.export import ToCoreMLConfig
from mobileclip_dense.deploy.coreml.exporter import to_coreml

if __name__ == "__main__":
    run_with_settings(ToCoreMLConfig, to_coreml, "python -m export.to_coreml")
