"""What every registered verifier keeps; a new one is added to `CASES`."""

from __future__ import annotations

import json
import math
from dataclasses import astuple, replace

import pytest

from agpo.verify import Item, Verdict, VerifierPool, registry
from agpo.verify.registry import Verifier, find_verifier
from tests.agpo.verify.hazards import absurd_answers

CASES = {  # a right response, a wrong one, their gold
    "countdown": ("1 + 2 = 3", "1 + 2 = 4", "1 2 : 3"),
    "gym": (
        "<answer>6</answer>",
        "<answer>7</answer>",
        json.dumps({"task": "gcd", "entry": {"answer": "6", "metadata": {}}}),
    ),
    "label": ("label: E", "label: S", "esci4:E"),
    "math": (r"\boxed{1 + x}", r"\boxed{2 + x}", "x + 1"),
}
REASONS = {"missing", "malformed", "mismatch", "unreadable"}
HOSTILE = [answer for answer, _ in absurd_answers()[::30]]

pytest.importorskip("reasoning_gym", reason="the extra gym is not installed")


@pytest.fixture(params=sorted(CASES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def decide(pool: VerifierPool, name: str, response: str, gold: str) -> Verdict:
    verdict = pool.verify([Item(name, response, gold)], timeout=0.5)[0]
    assert (verdict.cause == "none") is (verdict.verdict != "unverifiable")
    assert (verdict.reason == "") is verdict.correct
    assert verdict.verdict != "wrong" or verdict.reason in REASONS
    assert math.isfinite(verdict.seconds)
    assert 0 <= verdict.seconds <= 0.6
    assert len(verdict.extracted or "") <= 300
    json.dumps(astuple(verdict))
    return verdict


def test_every_verifier_has_a_case() -> None:
    made_by_tests = {"hazard", "math-verify"}
    assert set(registry._VERIFIERS) - made_by_tests == set(CASES)


def test_versions_are_counted_from_one(name: str) -> None:
    version = find_verifier(name).version
    assert isinstance(version, int)
    assert version >= 1


def test_a_right_response_is_correct_and_a_wrong_one_wrong(pool: VerifierPool, name: str) -> None:
    right, wrong, gold = CASES[name]
    assert decide(pool, name, right, gold).correct
    assert decide(pool, name, wrong, gold).reason == "mismatch"


def test_verdicts_name_their_verifier_and_are_the_same_again(pool: VerifierPool, name: str) -> None:
    for response in (*CASES[name][:2], ""):
        first, again = (decide(pool, name, response, CASES[name][2]) for _ in range(2))
        assert (first.verifier, first.version) == (name, find_verifier(name).version)
        assert replace(first, seconds=0.0) == replace(again, seconds=0.0)


@pytest.mark.parametrize("response", ["", " \n\t"])
def test_an_empty_response_is_wrong(pool: VerifierPool, name: str, response: str) -> None:
    verdict = decide(pool, name, response, CASES[name][2])
    assert (verdict.verdict, verdict.cause, verdict.reason) == ("wrong", "none", "missing")


@pytest.mark.parametrize("gold", ["", "  "])
@pytest.mark.parametrize("response", ["", "5"])
def test_an_empty_gold_is_unverifiable(pool: VerifierPool, name: str, gold: str, response: str) -> None:
    verdict = decide(pool, name, response, gold)
    assert (verdict.verdict, verdict.cause) == ("unverifiable", "gold")


def test_a_gold_that_cannot_be_read_shows_without_a_response(name: str) -> None:
    verifier = find_verifier(name)
    bad = verifier.decide("", " ")
    good = verifier.decide("", CASES[name][2])
    assert bad is not None and good is not None
    assert (bad.verdict, bad.cause) == ("unverifiable", "gold")
    assert (good.verdict, good.reason) == ("wrong", "missing")
    assert verifier.golds != Verifier(1, verifier.decide).golds


def test_hostile_texts_are_bounded_and_never_correct(pool: VerifierPool, name: str) -> None:
    for hostile in HOSTILE:
        assert not decide(pool, name, hostile, CASES[name][2]).correct
        assert not decide(pool, name, "5", hostile).correct
