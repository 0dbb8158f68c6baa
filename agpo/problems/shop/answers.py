"""What the teacher writes about a pair: type by type, then attribute by attribute wanted, offered and compared, then
the label. Its demonstrations are imperfect, at random and in one direction."""

from __future__ import annotations

from random import Random
from typing import get_args

from agpo.problems.shop.catalogue import KEYS, TYPES, Relation
from agpo.problems.shop.chance import happens, pick
from agpo.problems.shop.draws import Draw
from agpo.problems.shop.rules import Comparison, Judgement, Letter, Outcome, grade

_RELATIONS: tuple[Relation, ...] = get_args(Relation)
_OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
_LABELS: tuple[Letter, ...] = get_args(Letter)
_NOTHING = "none"

_ONLY_LABEL = 0.5  # of the over-gradings leave the steps right and raise the label only
_NAMED, _UNSTATED = 1.25, 1.15  # times as often where the title names the product, where a value is not shown
_RAISED_TO_EXACT = 0.75  # of over-graded accessories; the others become substitutes


def write_answer(draw: Draw, judgement: Judgement) -> str:
    """Such as ``type: mug mug same brand: corelle corelle equal size: 12oz 32oz differs => S``."""
    words = ["type:", draw.wanted.type.name, draw.offered.type.name, judgement.relation]
    for step in judgement.comparisons:
        words += [f"{step.key}:", step.wanted, step.offered or _NOTHING, step.outcome]
    return " ".join([*words, "=>", judgement.label])


def answer_words() -> list[str]:
    """Every word of answers, once."""
    values = [value for sold in TYPES.values() for pool in sold.attributes.values() for value in pool]
    keys = ["type:", *(f"{key}:" for key in KEYS)]
    return list(dict.fromkeys(["=>", *_LABELS, *_RELATIONS, *_OUTCOMES, _NOTHING, *keys, *TYPES, *sorted(values)]))


def misjudge(random: Random, draw: Draw, noise: float, over_grading: float) -> Judgement:
    """The judgement of an imperfect teacher.

    ``noise``: share of random slips, a wrong step or label. ``over_grading``: the probability that an accessory passes
    for the product, or a differing attribute for equal; half of it for a sibling. Voting does not repair that.
    """
    if happens(random, noise):
        return _slip(random, draw)
    relation, comparisons, _ = judgement = draw.judgement
    raised = judgement
    if relation == "accessory" and happens(random, over_grading * (_NAMED if draw.named else 1)):
        if happens(random, _RAISED_TO_EXACT):
            raised = Judgement("same", tuple(_pass(step) for step in comparisons), "E")
        else:
            raised = Judgement("substitute", (), "S")
    elif relation == "substitute" and happens(random, over_grading / 2):
        raised = Judgement("same", (), "E")
    elif relation == "same":
        passed = tuple(
            _pass(step) if step.outcome != "equal" and _passes(random, step, over_grading) else step
            for step in comparisons
        )
        raised = Judgement(relation, passed, grade(draw.wanted.type, relation, passed))
    return judgement._replace(label=raised.label) if happens(random, _ONLY_LABEL) else raised


def _pass(step: Comparison) -> Comparison:
    return step._replace(outcome="equal")


def _passes(random: Random, step: Comparison, over_grading: float) -> bool:
    return happens(random, over_grading * (_UNSTATED if step.outcome == "missing" else 1))


def _slip(random: Random, draw: Draw) -> Judgement:
    """One step is wrong and mostly the label that follows from it, else any wrong label."""
    relation, comparisons, label = draw.judgement
    place = int(random.random() * (len(comparisons) + 1))
    if place == len(comparisons):
        relation = pick(random, [other for other in _RELATIONS if other != relation])
        comparisons = comparisons if relation in ("same", "accessory") else ()
    else:
        step = comparisons[place]
        wrong: Outcome = "differs" if step.outcome == "equal" else "equal"
        comparisons = (*comparisons[:place], step._replace(outcome=wrong), *comparisons[place + 1 :])
    follows = grade(draw.wanted.type, relation, comparisons)
    if follows == label or happens(random, 0.2):
        follows = pick(random, [other for other in _LABELS if other != label])
    return Judgement(relation, comparisons, follows)
