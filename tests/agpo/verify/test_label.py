from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agpo.relevance import find_scheme, scheme_names, write_gold
from agpo.verify import Item, VerifierPool
from agpo.verify.label import find_label, verify_label

GOLD = "esci4:S"
ANSWER = "type: mug mug same brand: corelle corelle equal color: red blue differs size: 12oz 12oz equal => S"


@pytest.mark.parametrize(
    "response",
    [
        ANSWER,
        "S",
        "substitute",
        "=> s",
        "Label: S",
        "label: Substitute.",
        "**Label:** S",
        "**Label**: `S`",
        "Relevance = 2",
        "The answer is S.",
        "#### S",
        r"so it is \boxed{S}",
        r"\boxed{\text{S}}",
        "Label: S (substitute)",
        "Label: S - the brand differs",
        "Label: S\nThe brand differs.",
        "=> E\nNo, the size differs.\n=> S",
        "Label: E would need the brand. Label: S",
    ],
)
def test_right_labels(response: str) -> None:
    verdict = verify_label(response, GOLD)
    assert (verdict.verdict, verdict.cause, verdict.reason, verdict.extracted) == ("correct", "none", "", "S")
    assert (verdict.verifier, verdict.version) == ("label", 1)


@pytest.mark.parametrize(
    ("response", "reason", "extracted"),
    [
        ("=> E", "mismatch", "E"),
        ("Label: irrelevant", "mismatch", "I"),
        ("", "missing", None),
        ("the mug is red", "missing", None),
        ("type: mug mug same", "missing", None),
        ("Label:", "missing", None),
        ("Label:  \nsubstitute", "mismatch", "S"),
        ("=> S =>", "missing", None),
        ("=> S or E", "malformed", "S or E"),
        ("Label: 7", "malformed", "7"),
        ("=> differs S", "malformed", "differs S"),
        ("Label: " + "x" * 300, "malformed", "x" * 100),
        ("S" + " and so on" * 100, "missing", None),
    ],
)
def test_wrong_labels_say_why(response: str, reason: str, extracted: str | None) -> None:
    gold = "esci4:C" if response.endswith("substitute") else GOLD
    verdict = verify_label(response, gold)
    assert (verdict.verdict, verdict.cause, verdict.reason, verdict.extracted) == ("wrong", "none", reason, extracted)


def test_only_the_label_counts() -> None:
    assert verify_label("type: mug mug unrelated => S", GOLD).correct


@pytest.mark.parametrize("gold", ["S", "esci4:X", "esci9:S", "", "esci4"])
def test_an_unknown_gold_is_unverifiable(gold: str) -> None:
    verdict = verify_label("=> S", gold)
    assert (verdict.verdict, verdict.cause, verdict.reason) == ("unverifiable", "gold", "unparsable")


@pytest.mark.parametrize("name", scheme_names())
def test_every_scheme_tells_its_labels_apart(name: str) -> None:
    scheme = find_scheme(name)
    for level, wanted in enumerate(scheme):
        for given_label in scheme:
            verdicts = {
                verify_label(response, write_gold(scheme, wanted)).correct
                for response in (f"=> {given_label.letter}", f"Label: {given_label.name.title()}")
            }
            assert verdicts == {given_label is wanted}
        assert verify_label(f"Label: {level}", write_gold(scheme, wanted)).correct


def test_a_label_of_another_scheme_is_malformed() -> None:
    assert verify_label("=> C", "lref5:S").reason == "malformed"


@given(st.text(max_size=80), st.sampled_from("ESCI"))
def test_whatever_comes_before_the_label_changes_nothing(prose: str, letter: str) -> None:
    assert verify_label(f"{prose}\nLabel: {letter}", GOLD).correct == (letter == "S")


@given(st.text(max_size=500))
def test_arbitrary_text_gets_a_verdict_in_line_with_what_is_found(response: str) -> None:
    found = find_label(response, find_scheme("esci4"))
    verdict = verify_label(response, GOLD)
    assert verdict.extracted == found.text
    assert verdict.correct == (found.label is not None and found.label.letter == "S")


def test_the_pool_knows_it(pool: VerifierPool) -> None:
    verdicts = pool.verify([Item("label", ANSWER, GOLD), Item("label", ANSWER, "esci4:E"), Item("label", "", GOLD)])
    assert [verdict.reason for verdict in verdicts] == ["", "mismatch", "missing"]


def test_time_does_not_grow_with_the_response() -> None:
    started = time.thread_time()
    for _ in range(100):
        verify_label(LONG, GOLD)
    assert (time.thread_time() - started) / 100 < 1e-3


LONG = "label: is\nanswer: = " * 500_000 + "=> S"


@pytest.mark.bench
def test_an_answer_takes_ten_microseconds() -> None:
    started = time.thread_time()
    for _ in range(20_000):
        verify_label(ANSWER, GOLD)
    spent = (time.thread_time() - started) / 20_000
    print(f"{spent * 1e6:.1f} µs an answer")
    assert spent <= 10e-6
