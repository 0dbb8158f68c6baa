from __future__ import annotations

import pytest

from agpo.problems.contamination import COMMON, WHOLE, EvaluationSet, Overlap, find_overlaps, split_phrases

QUESTION = "A baker sells 12 loaves each morning and 7 each evening. How many loaves does he sell in 9 days?"


def make_set(*questions: str, name: str = "test") -> EvaluationSet:
    return EvaluationSet(name, [f"row {number}" for number in range(1, len(questions) + 1)], questions)


def words(text: str, start: int, stop: int) -> str:
    return " ".join(text.split()[start:stop])


def test_phrases_ignore_case_and_punctuation() -> None:
    assert split_phrases("One, TWO — three: four five!", 5) == ["one two three four five"]
    assert split_phrases("a b c d e f", 5) == ["a b c d e", "b c d e f"]


def test_a_shorter_question_is_one_phrase_in_which_signs_count() -> None:
    assert split_phrases("What is 3 + 4?", 13) == ["whatis3+4"]
    assert split_phrases("what is 3+4 ?", 13) == split_phrases("What is 3 + 4?", 13)
    assert split_phrases("What is 3 - 4?", 13) != split_phrases("What is 3 + 4?", 13)


@pytest.mark.parametrize("shared", [12, 13])
def test_thirteen_words_in_a_row_are_an_overlap(shared: int) -> None:
    training = f"Once more: {words(QUESTION, 0, shared).upper()} and so on until the end of the whole story."
    (part,) = find_overlaps(["Something else entirely?", training], [make_set("Unrelated.", QUESTION)], 13)
    if shared == 12:
        assert part.overlaps == {}
        assert part.found == 0
    else:
        phrase = "a baker sells 12 loaves each morning and 7 each evening how many"
        assert part.overlaps == {1: Overlap("test", "row 2", phrase)}
        assert part.found == 1


def test_a_short_question_overlaps_only_the_same_text() -> None:
    training = ["what is 3+4", "What is 3 - 4?", "Please tell me: What is 3 + 4?"]
    (part,) = find_overlaps(training, [make_set("What is 3 + 4?")], 13)
    assert list(part.overlaps) == [0]


def test_every_set_is_told_what_was_found_of_it() -> None:
    training = [f"{QUESTION} Number {number} of the list of them." for number in range(3)]
    parts = find_overlaps(training, [make_set("2 + 2?", QUESTION), make_set(QUESTION), make_set("1 + 1?")], 13)
    assert [part.found for part in parts] == [1, 1, 0]
    assert [sorted(part.overlaps) for part in parts] == [[0, 1, 2], [0, 1, 2], []]


def test_a_phrase_of_many_questions_on_both_sides_is_a_template() -> None:
    template = "Using every one of the given numbers exactly once write an equation that equals the target"
    evaluation = make_set(*(f"{template}: e{number}" for number in range(3)))
    many = [f"{template}: t{number}" for number in range(COMMON + 1)]
    (part,) = find_overlaps(many, [evaluation], 13)
    assert part.overlaps == {}
    assert part.found == 0
    (few,) = find_overlaps(many[:COMMON], [evaluation], 13)
    assert len(few.overlaps) == COMMON
    # What is specific to one question is found in a template all the same.
    (same,) = find_overlaps([*many, f"{template}: e1"], [evaluation], 13)
    assert list(same.overlaps) == [COMMON + 1]
    assert same.found == 1


def test_a_whole_question_is_no_template_however_often_it_returns() -> None:
    training = ["red shoes" + "." * (number % 2) for number in range(3 * COMMON)]
    (part,) = find_overlaps(training, [make_set("Red shoes", "red  shoes", "blue shoes")], WHOLE)
    assert len(part.overlaps) == 3 * COMMON
    assert part.overlaps[0] == Overlap("test", "row 1", "redshoes")
    assert part.found == 2


def test_an_evaluation_question_in_many_variants_is_no_template() -> None:
    training = [f"{QUESTION} Variant {number}" for number in range(3 * COMMON)]
    (part,) = find_overlaps(training, [make_set(QUESTION, "Unrelated.")], 13)
    assert len(part.overlaps) == 3 * COMMON
    assert part.found == 1


def test_nothing_overlaps_nothing() -> None:
    (part,) = find_overlaps([], [make_set(QUESTION)], 13)
    assert (part.overlaps, part.found) == ({}, 0)
    (part,) = find_overlaps([QUESTION], [make_set()], 13)
    assert (part.overlaps, part.found) == ({}, 0)
