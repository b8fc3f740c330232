"""`python -m export.verify ARTIFACT`: an artifact's files and numbers checked."""

from mobileclip_dense.command import run_with_settings
from mobileclip_dense.config.export import VerifyConfig
from mobileclip_dense.deploy.verify import verify

if __name__ == "__main__":
    run_with_settings(VerifyConfig, verify, "python -m export.verify")
