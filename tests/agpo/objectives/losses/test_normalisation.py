from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agpo.objectives.losses import ConstantLength, Normalisation, SequenceMean, TokenMean

rows_of_losses = st.lists(st.lists(st.floats(-3, 3), min_size=1, max_size=9), min_size=1, max_size=7)


def weighted_sum(normalisation: Normalisation, rows: list[list[float]]) -> float:
    weights = normalisation.token_weights(torch.tensor([len(row) for row in rows]))
    return sum(float(weight) * sum(row) for weight, row in zip(weights, rows, strict=True))


@given(rows_of_losses)
def test_the_weights_make_the_named_mean(rows: list[list[float]]) -> None:
    tokens = [value for row in rows for value in row]
    assert weighted_sum(TokenMean(), rows) == pytest.approx(sum(tokens) / len(tokens), abs=1e-12)
    by_row = [sum(row) / len(row) for row in rows]
    assert weighted_sum(SequenceMean(), rows) == pytest.approx(sum(by_row) / len(rows), abs=1e-12)
    assert weighted_sum(ConstantLength(tokens=16), rows) == pytest.approx(sum(tokens) / 16 / len(rows), abs=1e-12)


def test_rows_of_one_length_weigh_the_same_everywhere() -> None:
    lengths = torch.tensor([8, 8, 8])
    for normalisation in (TokenMean(), SequenceMean(), ConstantLength(tokens=8)):
        assert normalisation.token_weights(lengths).tolist() == pytest.approx([1 / 24] * 3)


def test_the_constant_is_asked_for() -> None:
    with pytest.raises(ValidationError, match="tokens"):
        ConstantLength.model_validate({"kind": "constant"})
