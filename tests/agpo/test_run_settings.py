"""What a night's settings about labels and starts refuse before anything runs."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from agpo.objectives.losses import Correction
from agpo.objectives.reinforce_plus_plus import ReinforcePlusPlus
from agpo.objectives.reinforce_plus_plus_baseline import ReinforcePlusPlusBaseline
from agpo.settings import (
    CountdownProblems,
    DistilSettings,
    FolderBase,
    LabelSettings,
    LossSettings,
    NightlyRun,
    RolloutSettings,
    ShopProblems,
    SuperviseSettings,
    TableProblems,
    TrainRun,
)

SHOP = ShopProblems()
PAIRS = TableProblems(path="pairs.jsonl", verifier="label", prompt="plain-v1")
BASE = FolderBase(path="model")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"problems": CountdownProblems(), "label": LabelSettings()}, "label: problems must be query–ad pairs"),
        ({"problems": SHOP, "distil": DistilSettings()}, "distil: there are no labels without label"),
        ({"problems": SHOP, "supervise": SuperviseSettings()}, "supervise: there are no labels without label"),
        ({"problems": PAIRS, "base": BASE, "label": LabelSettings()}, r"label\.path: the problems have no unlabelled"),
        ({"problems": ShopProblems(unlabelled=0), "label": LabelSettings()}, r"label\.path: the problems have no"),
        (
            {
                "problems": PAIRS.model_copy(update={"selection": 0}),
                "base": BASE,
                "label": LabelSettings(path="more.jsonl"),
                "distil": DistilSettings(),
            },
            r"problems\.selection = 0 and problems\.confirmation = 400 must be above 0",
        ),
        ({"time_zone": "Mars/Olympus"}, "'Mars/Olympus' is not a time zone"),
        ({"stop_training_at": "25:00"}, "String should match pattern"),
    ],
    ids=["puzzles", "distil", "supervise", "rows", "no pool", "no selection", "zone", "time"],
)
def test_what_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        NightlyRun(**given)


def test_an_adapter_needs_a_learner_that_learns() -> None:
    with pytest.raises(ValidationError, match=r"learner\n.*frozen = true trains nothing, so lora has no use"):
        TrainRun(learner={"frozen": True, "lora": {"rank": 8}})
    with pytest.raises(ValidationError, match=r"learner\.lora\.rank\n.*less than or equal to 512"):
        TrainRun(learner={"lora": {"rank": 513}})


def test_a_correction_needs_all_tokens() -> None:
    with pytest.raises(ValidationError, match="compares with the probabilities of all tokens"):
        NightlyRun(loss=LossSettings(correction=Correction()), rollout=RolloutSettings(top_p=0.9))


def test_refills_need_advantages_of_single_groups() -> None:
    rollout = RolloutSettings(refills=2)
    assert NightlyRun(rollout=rollout).rollout.refills == 2
    for given, path in (
        ({"objective": ReinforcePlusPlus()}, "objective"),
        ({"compare": (ReinforcePlusPlusBaseline(),)}, r"compare\.0"),
    ):
        with pytest.raises(ValidationError, match=rf"rollout\.refills asks .* {path}\.kind reinforce_plus_plus"):
            NightlyRun(rollout=rollout, **given)


def test_only_a_night_starts_from_the_champion() -> None:
    assert NightlyRun().check_start() == NightlyRun()
    with pytest.raises(ValueError, match="start = champion is for the flow nightly"):
        NightlyRun(start="champion").check_start()


def test_labels_alone_leave_the_rest_as_it_is() -> None:
    night = NightlyRun(problems=SHOP, label=LabelSettings())
    alone = night.on_labels_alone()
    assert alone.distil == DistilSettings(gold_weight=0)
    assert alone.model_copy(update={"distil": None}) == night


def test_the_shops_pairs_of_a_file_have_their_attributes() -> None:
    night = NightlyRun(problems=SHOP, label=LabelSettings(path="pairs.parquet"))
    assert night.unlabelled is not None
    assert "color" in night.unlabelled.pair.attributes
    assert NightlyRun(problems=SHOP, label=LabelSettings()).unlabelled is None
