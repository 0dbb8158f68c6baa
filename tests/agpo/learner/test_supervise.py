from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from agpo.artifacts import Files, Store
from agpo.learner import supervise as stage
from agpo.learner.policy import load_policy
from agpo.learner.supervise import supervise
from agpo.settings import Supervised, SuperviseSettings, Supervision, VerifySettings
from agpo.stages import Work
from agpo.verify.countdown import verify_countdown
from tests.agpo.session_start import Start, start

__all__ = ["start"]

SETTINGS = Supervision(
    **SuperviseSettings(samples=4, chunk=32, training=Supervised(steps=3, batch=8, rate=1e-3, warm_up=1)).model_dump(),
    tokens=6,
    chat_template="none",
    verify=VerifySettings(workers=1),
)


@pytest.fixture
def open_work(start: Start, tmp_path: Path) -> Callable[[str], Work]:
    store = Store(start.folder)
    inputs = {"base": store.fetch(start.base), "problems": store.fetch(start.problems)}

    def make(attempt: str) -> Work:
        out, partial = tmp_path / f"out-{attempt}", Files(tmp_path / "partial")
        out.mkdir()
        keys = {"base": start.base.key, "problems": start.problems.key}
        return Work(inputs=inputs, keys=keys, out=out, partial=partial, seed=0, device="cpu")

    return make


def read_folder(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_only_right_answers_are_learnt(
    open_work: Callable[[str], Work], start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt: list[pl.DataFrame] = []
    encode = stage.encode_pairs

    def encode_noted(tokenizer: Any, pairs: pl.DataFrame, chat_template: str) -> Any:
        learnt.append(pairs)
        return encode(tokenizer, pairs, chat_template)

    monkeypatch.setattr(stage, "encode_pairs", encode_noted)
    made = supervise(SETTINGS, open_work("first"))
    problems = pl.read_parquet(Store(start.folder).fetch(start.problems) / "problems.parquet")
    golds = dict(problems.filter(pl.col("split") == "train").select("prompt", "gold").iter_rows())
    rows = learnt[0].rows(named=True)
    assert made["rows"] == len(rows) > 5
    assert all(verify_countdown(row["response"], golds[row["prompt"]]).verdict == "correct" for row in rows)
    assert len({(row["prompt"], row["response"]) for row in rows}) == len(rows)


def test_the_policy_changes_and_is_the_same_after_a_kill(
    open_work: Callable[[str], Work], start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = open_work("whole")
    supervise(SETTINGS, whole)
    base, trained = (load_policy(folder, "cpu")[0] for folder in (whole.inputs["base"], whole.out))
    pairs = zip(base.parameters(), trained.parameters(), strict=True)
    assert not all(before.equal(after) for before, after in pairs)

    whole.partial.remove("")
    calls = 0
    verify = stage.verify_rollouts

    def verify_once(*arguments: Any, **options: Any) -> pl.DataFrame:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return verify(*arguments, **options)

    monkeypatch.setattr(stage, "verify_rollouts", verify_once)
    with pytest.raises(KeyboardInterrupt):
        supervise(SETTINGS, open_work("killed"))
    again = open_work("again")
    supervise(SETTINGS, again)
    assert calls == 1 + 3  # three chunks, of which the first was kept
    assert read_folder(again.out) == read_folder(whole.out)


def test_a_base_that_is_never_right_is_an_error(open_work: Callable[[str], Work], tmp_path: Path) -> None:
    work = open_work("first")
    problems = pl.read_parquet(work.inputs["problems"] / "problems.parquet")
    hopeless = tmp_path / "hopeless"
    hopeless.mkdir()
    problems.with_columns(gold=pl.lit("1 1 : 999")).write_parquet(hopeless / "problems.parquet")
    with pytest.raises(ValueError, match=r"none of the base's 96 answers .* raise supervise\.samples"):
        supervise(SETTINGS, replace(work, inputs={**work.inputs, "problems": hopeless}))
