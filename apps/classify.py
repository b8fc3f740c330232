"""`python -m apps.classify ARTIFACT INPUT... --prompts TEXT...`: which text fits a picture."""

from mobileclip_dense.apps.classify import ClassifyConfig, classify
from mobileclip_dense.command import run_with_settings

if __name__ == "__main__":
    run_with_settings(ClassifyConfig, classify, "python -m apps.classify")
