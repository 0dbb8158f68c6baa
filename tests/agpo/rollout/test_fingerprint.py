from __future__ import annotations

import pytest

from agpo.rollout import Fingerprint
from agpo.rollout.fingerprint import PROMPTS, check_fingerprint, probe_prompts

ONE = Fingerprint(((1, 2, 3), (4, 5, 6)), ((-0.1, -0.2, -0.3), (-1.0, -1.0, -1.0)))


def test_the_prompts_are_fixed_and_below_the_vocabulary() -> None:
    prompts = probe_prompts(23, None)
    assert prompts == probe_prompts(23, 4096)
    assert len({tuple(prompt) for prompt in prompts}) == len(prompts) == PROMPTS
    assert min(map(min, prompts)) >= 0 and max(map(max, prompts)) < 23


def test_the_prompts_fill_a_block_of_a_prefix_cache_where_the_model_has_room() -> None:
    assert {len(prompt) for prompt in probe_prompts(23, 64)} == {40}
    assert {len(prompt) for prompt in probe_prompts(23, 25)} == {17}


def test_rounding_changes_no_digest_and_is_measured() -> None:
    other = Fingerprint(ONE.ids, ((-0.1, -0.2001, -0.3), (-1.0, -1.0, -1.0)))
    assert other.digest == ONE.digest
    assert ONE.count_equal(other) == 2
    assert ONE.difference(other) == pytest.approx(1e-4)


def test_texts_are_compared_up_to_the_first_token_that_differs() -> None:
    other = Fingerprint(((1, 9, 9), (4, 5, 6)), ((-0.1, -0.25, -7.0), (-1.0, -1.0, -1.0)))
    assert other.digest != ONE.digest
    assert ONE.count_equal(other) == 1
    assert ONE.difference(other) == other.difference(ONE) == pytest.approx(0.05)


def test_equal_ones_differ_by_nothing() -> None:
    assert ONE.difference(ONE) == 0.0


def test_an_engine_with_other_weights_is_named() -> None:
    other = Fingerprint(((1, 9, 9), (4, 5, 6)), ((-0.1, -0.75, -7.0), (-1.0, -1.0, -1.0)))
    assert check_fingerprint(other, ONE, 0.6) == pytest.approx(0.55)
    with pytest.raises(RuntimeError, match=r"differ by 0.55 nats, more than 0.5; 1 of 8 answers agree"):
        check_fingerprint(other, ONE, 0.5)


def test_a_log_prob_that_is_no_number_is_no_agreement() -> None:
    broken = Fingerprint(ONE.ids, ((float("nan"), -0.2, -0.3), (-1.0, -1.0, -1.0)))
    with pytest.raises(RuntimeError, match="does not sample"):
        check_fingerprint(broken, ONE, 0.5)
