from __future__ import annotations

from random import Random

import pytest

from agpo.problems.shop.answers import answer_words, misjudge, write_answer
from agpo.problems.shop.catalogue import TYPES
from agpo.problems.shop.draws import Draw, draw_ad, draw_wanted
from agpo.problems.shop.rules import Product, grade
from agpo.problems.shop.wording import write_query
from agpo.verify.label import verify_label

ORDER = "ICSE"


def draws(count: int, seed: str = "test") -> list[Draw]:
    random = Random(seed)
    wanted = [draw_wanted(random) for _ in range(count)]
    return [draw_ad(random, one, write_query(random, one)) for one in wanted]


DRAWS = draws(6000)


def share(kind: str, noise: float = 0.0, over_grading: float = 0.6) -> float:
    """How many draws of a case get too high a label."""
    random = Random("share")
    chosen = [draw for draw in DRAWS if draw.case == kind]
    found = [(misjudge(random, draw, noise, over_grading).label, draw.judgement.label) for draw in chosen]
    return sum(ORDER.index(given) > ORDER.index(right) for given, right in found) / len(found)


def test_an_answer_reads_step_by_step() -> None:
    random = Random("test")
    wanted = Product(TYPES["mug"], {"size": "12oz", "brand": "aroma", "color": "red"})
    answers = set()
    for _ in range(300):
        draw = draw_ad(random, wanted, write_query(random, wanted))
        answers.add(write_answer(draw, draw.judgement))
    assert "type: mug mug same brand: aroma aroma equal color: red red equal size: 12oz 12oz equal => E" in answers
    assert "type: mug coffee-maker accessory => C" in answers
    assert any("color: red none missing" in answer and answer.endswith("=> S") for answer in answers)
    assert set(" ".join(answers).split()) <= set(answer_words())


def test_a_right_answer_satisfies_the_verifier() -> None:
    for draw in DRAWS[:300]:
        assert verify_label(write_answer(draw, draw.judgement), f"esci4:{draw.judgement.label}").correct


def test_a_careful_teacher_is_always_right() -> None:
    random = Random("test")
    assert all(misjudge(random, draw, 0.0, 0.0) == draw.judgement for draw in DRAWS)


def test_noise_is_the_share_of_random_slips_in_every_direction() -> None:
    random = Random("test")
    given = [(misjudge(random, draw, 0.3, 0.0), draw.judgement) for draw in DRAWS]
    assert sum(judgement != right for judgement, right in given) / len(given) == pytest.approx(0.3, abs=0.02)
    assert all(judgement.label != right.label for judgement, right in given if judgement != right)
    steps = [ORDER.index(judgement.label) - ORDER.index(right.label) for judgement, right in given]
    assert min(steps) <= -2
    assert max(steps) >= 2


def test_over_grading_goes_one_way() -> None:
    random = Random("test")
    for draw in DRAWS:
        label = misjudge(random, draw, 0.0, 0.9).label
        assert ORDER.index(label) >= ORDER.index(draw.judgement.label)


@pytest.mark.parametrize(
    ("case", "least", "most"),
    [
        ("near_miss", 0.5, 0.7),
        ("brand", 0.5, 0.7),
        ("unstated", 0.6, 0.8),
        ("accessory", 0.6, 0.75),
        ("sibling", 0.2, 0.4),
        ("unrelated", 0.0, 0.0),
        ("clean", 0.0, 0.0),
    ],
)
def test_the_hard_cases_are_over_graded_so_often_that_voting_does_not_repair_them(
    case: str, least: float, most: float
) -> None:
    assert least <= share(case) <= most


def test_half_of_the_over_gradings_are_right_step_by_step() -> None:
    random = Random("test")
    raised = []
    for draw in DRAWS:
        judgement = misjudge(random, draw, 0.0, 0.6)
        if judgement.label != draw.judgement.label:
            raised.append(judgement._replace(label=draw.judgement.label) == draw.judgement)
            follows = grade(draw.wanted.type, judgement.relation, judgement.comparisons)
            assert raised[-1] or judgement.label == follows
    assert sum(raised) / len(raised) == pytest.approx(0.5, abs=0.03)


def test_an_accessory_whose_title_names_the_product_passes_more_often() -> None:
    random = Random("test")
    rates = {}
    for named in (True, False):
        chosen = [draw for draw in DRAWS if draw.judgement.relation == "accessory" and draw.named == named] * 4
        passed = [misjudge(random, draw, 0.0, 0.6).label != draw.judgement.label for draw in chosen]
        rates[named] = sum(passed) / len(passed)
    assert rates[True] > rates[False] + 0.05
