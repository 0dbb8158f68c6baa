from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agpo.objectives import OBJECTIVES, Agpo, Grpo
from agpo.profile import PROFILES, SettingsError, load_settings
from agpo.settings import CountdownProblems, FolderBase, NightlyRun, ScratchBase, TableProblems, TrainRun


def load(*sets: str, profile: str | None = None, **environ: str) -> NightlyRun:
    return load_settings(NightlyRun, profile, sets, environ)


def problems_of(*sets: str, profile: str | None = None, **environ: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load(*sets, profile=profile, **environ)
    return caught.value.problems


@pytest.fixture
def profile(tmp_path: Path) -> Any:
    def write(text: str) -> str:
        path = tmp_path / "mine.toml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_without_layers_the_defaults_hold() -> None:
    assert load() == NightlyRun()


def test_later_layers_win_field_by_field(profile: Any) -> None:
    path = profile("steps = 1\nseed = 1\n[learner]\nrate = 1e-3\nwarm_up = 1\nclip_norm = 2.0\n")
    settings = load(
        "learner.rate=3e-3", "steps=3", profile=path, AGPO__LEARNER__RATE="2e-3", AGPO__LEARNER__WARM_UP="2"
    )
    assert (settings.steps, settings.seed) == (3, 1)
    assert (settings.learner.rate, settings.learner.warm_up, settings.learner.clip_norm) == (3e-3, 2, 2.0)


def test_of_two_equal_keys_the_last_wins() -> None:
    assert load("steps=1", "steps=2").steps == 2


def test_a_table_given_as_json_is_merged() -> None:
    settings = load('learner={"rate": 0.1}', AGPO__LEARNER__WARM_UP="7")
    assert (settings.learner.rate, settings.learner.warm_up) == (0.1, 7)


def test_lists_are_replaced_whole(profile: Any) -> None:
    path = profile("[interpolate]\nweights = [0.1, 0.2, 0.3]\n")
    assert load("interpolate.weights=[1.0]", profile=path).interpolate.weights == (1.0,)


def test_a_field_of_a_default_union_member_needs_no_kind() -> None:
    assert load("objective.delta=0.5").objective == Agpo(delta=0.5)
    base = load("base.training.steps=7").base
    assert isinstance(base, ScratchBase)
    assert base.training.steps == 7


def test_another_kind_drops_the_fields_of_the_lower_layers(profile: Any) -> None:
    path = profile("[objective]\nkind = 'agpo'\ndelta = 0.25\nddof = 1\n")
    assert load("objective.kind=grpo", profile=path).objective == Grpo()
    assert load(profile=path, AGPO__OBJECTIVE__KIND="grpo", AGPO__OBJECTIVE__DDOF="0").objective == Grpo(ddof=0)


def test_the_same_kind_keeps_them(profile: Any) -> None:
    path = profile("[objective]\ndelta = 0.25\n")
    assert load("objective.kind=agpo", "objective.ddof=1", profile=path).objective == Agpo(delta=0.25, ddof=1)


def test_the_order_of_kind_and_field_in_a_layer_does_not_matter() -> None:
    expected = FolderBase(path="model")
    assert load("base.kind=folder", "base.path=model").base == expected
    assert load("base.path=model", "base.kind=folder").base == expected


def test_a_field_of_the_other_kind_is_refused_not_dropped() -> None:
    (problem,) = problems_of("objective.delta=0.5", "objective.kind=grpo")
    assert problem == "objective.delta = 0.5 (--set): unknown; accepted: kind, ddof, epsilon"


def test_a_field_below_another_kind_is_merged(profile: Any) -> None:
    path = profile("[problems]\nsource = 'table'\npath = 'rows.jsonl'\n[problems.fields]\nquestion = 'q'\n")
    problems = load("problems.fields.gold=a", "base.kind=folder", "base.path=model", profile=path).problems
    assert isinstance(problems, TableProblems)
    assert (problems.fields.question, problems.fields.gold) == ("q", "a")


def test_text_fields_keep_digits_as_text() -> None:
    assert load("family=123").family == "123"


@given(st.integers(0, 10**9), st.floats(1e-9, 1e3), st.booleans())
def test_scalars_arrive_as_they_were_typed(steps: int, rate: float, mask: bool) -> None:
    settings = load(f"steps={steps}", f"learner.rate={rate}", AGPO__LOSS__MASK_TRUNCATED=json.dumps(mask))
    assert (settings.steps, settings.learner.rate, settings.loss.mask_truncated) == (steps, rate, mask)


def test_every_wrong_setting_is_named_at_once(profile: Any) -> None:
    path = profile(
        "stepss = 3\n[objective]\ndelta = -1\n[[compare]]\nkind = 'grop'\n[[compare]]\nkind = 'grpo'\nx = 1\n"
    )
    found = problems_of(
        "learner.rate",
        "device=gpu",
        "evaluate.samples=3",
        "base.kind=folder",
        "learner=5",
        profile=path,
        AGPO__INTERPOLATE__MARGIN="2",
    )
    fields = ", ".join(NightlyRun.model_fields)
    assert sorted(found) == sorted(
        [
            "--set learner.rate: accepted: key=value, e.g. learner.rate=1e-4",
            'device = "gpu" (--set): accepted: auto, cpu, cuda',
            "evaluate (--set): k = 64 needs at least as many samples per problem, got 3",
            "base.path (--set): missing; accepted: Folder",
            "learner = 5 (--set): accepted: a table of frozen, lora, rate, warm_up, weight_decay, clip_norm,"
            " mini_batches, epochs, micro_tokens, precision, checkpoint_activations, guards, refusals",
            "interpolate.margin = 2 (AGPO__INTERPOLATE__MARGIN): accepted: less than 1",
            f"stepss = 3 (profile {path}): unknown; accepted: {fields}; did you mean steps?",
            f"objective.delta = -1 (profile {path}): accepted: greater than or equal to 0",
            f'compare.0.kind = "grop" (profile {path}): accepted: {", ".join(OBJECTIVES)}; did you mean grpo?',
            f"compare.1.x = 1 (profile {path}): unknown; accepted: kind, ddof, epsilon",
        ]
    )


def test_a_wrong_kind_names_the_kinds() -> None:
    (problem,) = problems_of("problems.source=tabel")
    assert problem.startswith('problems.source = "tabel" (--set): accepted: countdown, ')
    assert problem.endswith("did you mean table?")


def test_settings_that_do_not_go_together_are_named() -> None:
    assert problems_of("learner.mini_batches=90") == ("learner.mini_batches 90 exceeds rollout.problems 16",)


@pytest.mark.parametrize(
    "sets", [("objective.delta=1", 'objective={"kind":"grpo"}'), ('objective={"kind":"grpo"}', "objective.ddof=1")]
)
def test_a_whole_and_its_part_in_one_layer_are_refused(sets: tuple[str, ...]) -> None:
    (problem,) = problems_of(*sets)
    assert problem.endswith("a whole and a part of it are both set")


def test_an_unknown_variable_is_refused() -> None:
    (problem,) = problems_of(AGPO__LERNER__RATE="1")
    assert problem.startswith('lerner = {"rate": 1} (AGPO__LERNER__RATE): unknown')
    assert problem.endswith("did you mean learner?")


def test_other_variables_are_left_alone() -> None:
    assert load(AGPO_HOME="x", PATH="y") == NightlyRun()


def test_an_unknown_profile_names_the_known_ones() -> None:
    (problem,) = problems_of(profile="smok")
    assert problem == (
        "profile 'smok': not found; accepted: a .toml file, countdown, demo, gsm8k, shop, shop-smoke, smoke; "
        "did you mean smoke?"
    )


def test_a_broken_profile_is_named_with_its_line(profile: Any) -> None:
    (problem,) = problems_of(profile=profile("steps = 1\nseed = = 2\n"))
    assert "cannot be read as TOML" in problem
    assert "line 2" in problem


@pytest.mark.parametrize("name", ["smoke", "demo", "countdown"])
def test_a_shipped_profile_is_complete(name: str) -> None:
    settings = load(profile=name)
    assert isinstance(settings.problems, CountdownProblems)
    assert settings.rollout.tokens == 6 * (settings.problems.numbers - 1)  # six tokens a step, the last ends the answer


def test_gsm8k_wants_the_rows_and_nothing_else() -> None:
    (problem,) = problems_of(profile="gsm8k")
    assert problem.startswith("problems.path (profile gsm8k): missing; accepted: path, glob or fsspec address")
    settings = load("problems.path=rows.jsonl", profile="gsm8k")
    assert settings.evaluate.samples >= 4 * max(settings.evaluate.ks)


def test_the_demo_follows_the_measured_recipe() -> None:
    settings = load(profile="demo")
    assert settings.objective == Agpo(delta=0.25, negative=-0.5, all_wrong="mask")
    assert (settings.loss.kl, settings.steps, settings.rollout.problems, settings.rollout.samples) == (
        0.05,
        300,
        16,
        16,
    )
    assert settings.compare == (Grpo(),)


def test_the_shop_judges_its_boundary_where_guessing_does_not_reach() -> None:
    settings = load(profile="shop")
    assert (settings.family, settings.problems.source, max(settings.evaluate.ks)) == ("shop", "shop", 4)


def test_every_profile_has_a_test() -> None:
    assert {path.stem for path in PROFILES.glob("*.toml")} == {
        "smoke",
        "demo",
        "countdown",
        "gsm8k",
        "shop",
        "shop-smoke",
    }


def test_the_small_shop_goes_all_the_way() -> None:
    settings = load(profile="shop-smoke")
    assert settings.label is not None
    assert settings.distil is not None
    assert settings.scheme == "esci4"


def test_the_class_decides_which_fields_there_are() -> None:
    assert isinstance(load_settings(TrainRun, None, ["steps=1"], {}), TrainRun)
    with pytest.raises(SettingsError, match=r"evaluate.*unknown"):
        load_settings(TrainRun, None, ["evaluate.samples=3"], {})
