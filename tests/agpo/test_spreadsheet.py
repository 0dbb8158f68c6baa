from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agpo.spreadsheet import quote_cell, unquote_cell


@given(st.text())
def test_a_quoted_cell_is_no_formula_and_reads_as_before(text: str) -> None:
    quoted = quote_cell(text)
    assert not quoted.startswith(("=", "+", "-", "@"))
    if not text.startswith("'"):
        assert unquote_cell(quoted) == text


def test_no_text_is_an_empty_cell() -> None:
    assert quote_cell(None) == ""
