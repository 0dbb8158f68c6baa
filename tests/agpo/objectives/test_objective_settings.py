"""Objectives and losses as settings: chosen by kind, refused with the path, the value and what is accepted."""

from __future__ import annotations

import pytest

from agpo.objectives import OBJECTIVES, Agpo
from agpo.objectives.dapo import Dapo, Overlong
from agpo.objectives.losses import POLICY_LOSSES, ConstantLength
from agpo.objectives.losses.gspo import Gspo
from agpo.objectives.schedule import LinearDecay
from agpo.profile import SettingsError, load_settings
from agpo.settings import NightlyRun, TrainRun


def load(*sets: str) -> NightlyRun:
    return load_settings(NightlyRun, None, sets, {})


def problem_of(*sets: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(*sets)
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_every_kind_is_chosen_by_its_name(kind: str) -> None:
    assert load(f"objective.kind={kind}").objective == OBJECTIVES[kind]()  # type: ignore[call-arg]


@pytest.mark.parametrize("kind", POLICY_LOSSES)
def test_every_policy_loss_is_chosen_by_its_name(kind: str) -> None:
    assert load(f"loss.policy.kind={kind}").loss.policy == POLICY_LOSSES[kind]()  # type: ignore[call-arg]


def test_nested_options_are_set_by_path() -> None:
    run = load("objective.schedule.kind=linear", "objective.schedule.decay_steps=50", "objective.delta=0.5")
    assert run.objective == Agpo(delta=0.5, schedule=LinearDecay(decay_steps=50))
    run = load("objective.kind=dapo", "objective.overlong.longest=18", "objective.overlong.buffer=4")
    assert run.objective == Dapo(overlong=Overlong(longest=18, buffer=4))
    run = load(
        "loss.policy.kind=gspo",
        "loss.policy.clip_high=0.01",
        "loss.normalisation.kind=constant",
        "loss.normalisation.tokens=18",
    )
    assert (run.loss.policy, run.loss.normalisation) == (Gspo(clip_high=0.01), ConstantLength(tokens=18))


@pytest.mark.parametrize(
    ("sets", "problem"),
    [
        (["objective.delta=-1"], "objective.delta = -1 (--set): accepted: greater than or equal to 0"),
        (["objective.negative=0.5"], "objective.negative = 0.5 (--set): accepted: less than or equal to 0"),
        (
            ["objective.schedule.kind=linear"],
            "objective.schedule.decay_steps (--set): missing; accepted: steps until the factor is 0",
        ),
        (
            ["objective.schedule.kind=cosine"],
            'objective.schedule.kind = "cosine" (--set): accepted: constant, linear, unsolved',
        ),
        (
            ["objective.kind=pass_at_k", "objective.k=16"],
            "objective.kind pass_at_k needs at least 17 rollouts of a problem to give a signal; rollout.samples is 16",
        ),
        (
            ["rollout.samples=1", 'compare=[{"kind": "grpo"}]'],
            "compare.0.kind grpo needs at least 2 rollouts of a problem to give a signal; rollout.samples is 1",
        ),
        (
            ["objective.kind=dapo", 'objective.overlong={"longest": 4, "buffer": 9}'],
            "objective.overlong (--set): buffer 9 exceeds longest 4, the limit that it is a part of",
        ),
        (["loss.policy.kind=ppo"], 'loss.policy.kind = "ppo" (--set): accepted: cispo, gspo, ppo_clip, sapo'),
        (["loss.policy.dual_clip=1"], "loss.policy.dual_clip = 1 (--set): accepted: greater than 1"),
        (["loss.kl_estimator=k4"], 'loss.kl_estimator = "k4" (--set): accepted: k1, k2, k3'),
        (["loss.entropy=-1"], "loss.entropy = -1 (--set): accepted: greater than or equal to 0"),
    ],
)
def test_what_cannot_be_is_refused_when_settings_load(sets: list[str], problem: str) -> None:
    assert problem_of(*sets) == problem


@pytest.mark.parametrize("option", ["whiten", "normalise", "standardise"])
def test_whitening_agpo_is_not_an_option(option: str) -> None:
    accepted = ", ".join(Agpo.model_fields)
    assert problem_of(f"objective.{option}=true").startswith(
        f"objective.{option} = true (--set): unknown; accepted: {accepted}"
    )


def test_what_an_objective_is_belongs_to_the_key_of_training() -> None:
    keys = [
        str(TrainRun.model_validate(changes).what_training_depends_on())
        for changes in [
            {},
            {"objective": {"kind": "agpo", "focus": 1}},
            {"loss": {"kl_estimator": "k2"}},
            {"loss": {"policy": {"kind": "sapo"}}},
            {"loss": {"normalisation": {"kind": "sequence_mean"}}},
        ]
    ]
    assert len(set(keys)) == len(keys)


def test_the_form_shows_each_method_with_its_own_fields() -> None:
    schema = TrainRun.model_json_schema()
    mapping = schema["properties"]["objective"]["discriminator"]["mapping"]
    assert set(mapping) == set(OBJECTIVES)
    assert set(schema["$defs"]["WReinforce"]["properties"]) == {"kind", "positive_weight"}
