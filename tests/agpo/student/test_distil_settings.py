"""What a run may say about its student."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from agpo.settings.distil import AlignedEncoder, BaseEncoder, DistilSettings, FolderEncoder

READ = TypeAdapter(DistilSettings).validate_python


def test_the_default_needs_neither_base_nor_folder() -> None:
    assert [type(encoder) for encoder in DistilSettings().encoders] == [AlignedEncoder]


def test_encoders_are_told_apart_by_kind() -> None:
    read = READ({"encoders": [{"kind": "base"}, {"kind": "folder", "path": "mini"}, {"kind": "aligned", "width": 32}]})
    assert [type(encoder) for encoder in read.encoders] == [BaseEncoder, FolderEncoder, AlignedEncoder]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"encoders": []}, "at least 1 item"),
        ({"encoders": [{"kind": "other"}]}, "'aligned', 'base', 'folder'"),
        ({"encoders": [{"kind": "folder"}]}, "path"),
        ({"encoders": [{"kind": "aligned", "width": 30}]}, r"width 30 is not a multiple of heads \(4\)"),
        ({"gold_weight": -1}, "greater than or equal to 0"),
        ({"temperature": 0}, "greater than 0"),
        ({"int8_agreement": 1.1}, "less than or equal to 1"),
    ],
    ids=["none", "kind", "path", "heads", "weight", "temperature", "agreement"],
)
def test_what_is_refused(given: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        READ(given)
