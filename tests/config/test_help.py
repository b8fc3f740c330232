"""Help texts that are generated from a registry."""

from dataclasses import replace
from typing import get_type_hints

import pytest
from typing_extensions import Doc

from mobileclip_dense.config import FinetuneConfig
from mobileclip_dense.config.encoders import ENCODERS


def test_a_help_text_has_later_registrations(monkeypatch: pytest.MonkeyPatch) -> None:
    (doc,) = get_type_hints(FinetuneConfig, include_extras=True)["encoder"].__metadata__
    assert isinstance(doc, Doc)
    assert "swin_l: Swin-L" in doc.documentation
    monkeypatch.setitem(ENCODERS, "mci9", replace(ENCODERS["mci0"], description="of the future"))
    assert "mci9: of the future" in doc.documentation
