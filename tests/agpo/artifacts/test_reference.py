from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agpo.artifacts import ArtifactRef, digest

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def reorder(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reorder(value[key]) for key in reversed(list(value))}
    if isinstance(value, list):
        return [reorder(item) for item in value]
    return value


@given(json_values)
def test_digest_ignores_the_order_of_keys(value: Any) -> None:
    assert digest(reorder(value)) == digest(value)


@given(json_values, json_values)
def test_different_values_have_different_digests(one: Any, other: Any) -> None:
    assert (digest(one) == digest(other)) == (repr(reorder_sorted(one)) == repr(reorder_sorted(other)))


def reorder_sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reorder_sorted(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [reorder_sorted(item) for item in value]
    return value


@given(st.lists(st.integers()))
def test_order_of_a_list_matters(items: list[int]) -> None:
    assert (digest(items) == digest(items[::-1])) == (items == items[::-1])


@pytest.mark.parametrize("seed", ["0", "1"])
def test_digest_is_the_same_in_every_process(seed: str) -> None:
    code = (
        "from agpo.artifacts import digest; print("
        "digest({'stage': 'prepare', 'settings': {'rate': 5e-4, 'names': ['α', 'b'], 'off': None}, 'version': 1}))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert found == "83a4e8b4bde952423103245b558eda03159d63bcde8f01a2516000bd9cf14250"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_without_a_json_form_are_refused(number: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        digest({"rate": [number]})


def test_a_reference_cannot_be_changed_or_hold_other_fields() -> None:
    fields = {"uri": "a", "key": "k", "sha256": "s", "kind": "problems", "rows": 1, "bytes": 2}
    ref = ArtifactRef.model_validate(fields)
    assert ArtifactRef.model_validate_json(ref.model_dump_json()) == ref
    with pytest.raises(ValidationError, match="frozen"):
        ref.rows = 2  # type: ignore[misc]
    with pytest.raises(ValidationError, match="extra"):
        ArtifactRef.model_validate({**fields, "frame": []})
