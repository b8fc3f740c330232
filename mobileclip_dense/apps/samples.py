"""The `--sample` flag: a demo without an artifact or a photograph of one's own."""

import dataclasses
from dataclasses import dataclass
from typing import TypeVar

from mobileclip_dense.apps.batch import BatchConfig
from mobileclip_dense.runtime.references import sample_scenes

Config = TypeVar("Config", bound="SampleConfig")


@dataclass(frozen=True, kw_only=True)
class SampleConfig(BatchConfig):
    """Settings of a demo whose model comes with the package."""

    sample: bool = False
    """Run the sample artifact on the two sample scenes that come with the package, in place of ARTIFACT and INPUT."""

    def require_artifact(self) -> None:
        """Raise ValueError unless either an artifact or the sample is asked for."""
        if not self.sample:
            super().require_artifact()
        elif self.artifact is not None or self.inputs:
            raise ValueError("--sample: found ARTIFACT beside it, expected --sample alone or ARTIFACT INPUT ...")

    def with_sample(self: Config, name: str) -> Config:
        """The same settings, with `sample:NAME` and the sample scenes where `sample` is set."""
        if not self.sample:
            return self
        inputs = tuple(map(str, sample_scenes()))
        return dataclasses.replace(self, sample=False, artifact=f"sample:{name}", inputs=inputs)
