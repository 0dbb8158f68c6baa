from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from agpo.settings import ProblemSource

ADAPTER: TypeAdapter[ProblemSource] = TypeAdapter(ProblemSource)


def test_all_wrong_fields_are_named_at_once() -> None:
    wrong = {"source": "table", "path": "", "prompt": "math-v9", "selection": -1, "feilds": {}, "fields": {"gold": ""}}
    with pytest.raises(ValidationError) as caught:
        ADAPTER.validate_python(wrong)
    assert {".".join(map(str, error["loc"])) for error in caught.value.errors()} == {
        "table.path",
        "table.prompt",
        "table.selection",
        "table.feilds",
        "table.fields.gold",
    }
    assert "'math-v9' is not a prompt template; accepted: math-boxed-v1, plain-v1" in str(caught.value)


def test_numbers_of_countdown_are_in_the_range_of_values() -> None:
    with pytest.raises(ValidationError, match="highest 50 exceeds largest 40"):
        ADAPTER.validate_python({"source": "countdown", "highest": 50})


@pytest.mark.parametrize("source", [{"source": "table", "path": "rows.csv"}, {"source": "hub", "dataset": "a/b"}])
def test_rows_have_the_same_settings_wherever_they_come_from(source: dict[str, Any]) -> None:
    shared = {"fields", "gold_format", "verifier", "prompt", "selection", "confirmation", "limit", "largest_bad_share"}
    settings = ADAPTER.validate_python({**source, "limit": 7, "fields": {"question": "q"}})
    assert shared <= set(settings.model_dump())
    assert settings.model_dump()["fields"] == {"question": "q", "gold": "answer", "id": ""}
