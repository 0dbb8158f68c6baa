from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agpo.relevance import Label, Scheme, find_scheme, read_gold, scheme_names, write_gold

ESCI = find_scheme("esci4")
ALL = [find_scheme(name) for name in scheme_names()]


def letters(scheme: Scheme) -> str:
    return "".join(label.letter for label in scheme)


def test_the_schemes_and_their_order() -> None:
    assert {scheme.name: letters(scheme) for scheme in ALL} == {
        "binary": "IR",
        "ads3": "IPR",
        "esci4": "ICSE",
        "lref5": "ITMSE",
    }


@pytest.mark.parametrize("text", ["S", "s", "substitute", " Substitute ", "SUBSTITUTE", "2", "2.0", "10", "10.000"])
def test_letters_words_levels_and_ratings_are_one_label(text: str) -> None:
    label = ESCI.read(text)
    assert label is not None
    assert label.name == "substitute"


def test_spacing_of_words_does_not_matter() -> None:
    ads = find_scheme("ads3")
    assert ads.read("partially_relevant") is ads.read("Partially  Relevant") is ads.read("P")


@pytest.mark.parametrize("text", ["", "X", "exactly", "4", "-1", "2.5", "ES", "E S", "²"])
def test_anything_else_is_no_label(text: str) -> None:
    assert ESCI.read(text) is None


@given(st.text(max_size=20))
def test_any_text_is_read_without_an_error(text: str) -> None:
    assert ESCI.read(text) in {None, *ESCI}


@pytest.mark.parametrize("scheme", ALL, ids=lambda scheme: scheme.name)
def test_gains_and_the_gate_follow_the_order(scheme: Scheme) -> None:
    gains = [label.gain for label in scheme]
    assert gains == sorted(set(gains))
    assert (gains[0], gains[-1]) == (0.0, 1.0)
    gates = [label.relevant for label in scheme]
    assert gates == sorted(gates)
    assert set(gates) == {True, False}
    assert [scheme.level(label) for label in scheme] == list(range(len(gains)))


def test_what_passes_the_gate() -> None:
    passing = {scheme.name: {label.letter for label in scheme if label.relevant} for scheme in ALL}
    assert passing == {"binary": {"R"}, "ads3": {"R", "P"}, "esci4": {"E", "S"}, "lref5": {"E", "S"}}


def test_gains_of_esci() -> None:
    assert {label.letter: label.gain for label in ESCI} == {"E": 1.0, "S": 0.1, "C": 0.01, "I": 0.0}


@pytest.mark.parametrize("scheme", ALL, ids=lambda scheme: scheme.name)
def test_a_gold_says_its_scheme(scheme: Scheme) -> None:
    for label in scheme:
        assert read_gold(write_gold(scheme, label)) == (scheme, label)


@pytest.mark.parametrize("gold", ["E", "esci4", "esci4:", "esci4:X", "esci5:E", ":E", ""])
def test_a_gold_of_no_known_scheme_or_label_is_none(gold: str) -> None:
    assert read_gold(gold) is None


def test_an_unknown_scheme_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'esci' is not a label scheme; accepted: binary, ads3, esci4, lref5"):
        find_scheme("esci")


def test_accepted_labels_are_listed_from_the_best() -> None:
    assert ESCI.accepted == "E (exact, 3), S (substitute, 2), C (complement, 1), I (irrelevant, 0)"


def test_one_spelling_for_two_labels_is_refused() -> None:
    with pytest.raises(ValueError, match="scheme odd: 'no' stands for two labels"):
        Scheme("odd", (Label("A", "no", 0.0, False), Label("B", "yes", 1.0, True, ("no",))))
