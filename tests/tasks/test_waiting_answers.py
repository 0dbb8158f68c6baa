"""The answers of a training run that wait for people, as tables of its flow run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import polars as pl
import pytest

from agpo.artifacts.table import write_table
from agpo.journal import Update
from agpo.records import Disagreements
from agpo.session import Session
from tasks import waiting_answers
from tasks.live_table import LiveTable
from tasks.tracking import RunRef
from tasks.waiting_answers import LONGEST, WaitingAnswers, shorten, shorten_tail
from tests.agpo.session_start import open_session, start, store, take_step

__all__ = ["open_session", "start", "store"]

RUN = RunRef(tracking_uri="", experiment_id="", run_id="")


class Page:
    """Stands for the flow run's page and the MLflow run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shown: list[tuple[str, list[dict[str, Any]], str]] = []
        self.logged: dict[str, Any] = {}
        monkeypatch.setattr(LiveTable, "show", lambda table, *content: self.note(table.key, *content))
        monkeypatch.setattr(waiting_answers, "log_json", lambda run, content, name: self.logged.update({name: content}))

    def note(self, key: str, rows: Sequence[dict[str, Any]], description: str) -> None:
        self.shown.append((key, list(rows), description))


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Page:
    return Page(monkeypatch)


def leave_open(session: Session, step: int, count: int, reason: str) -> None:
    """Take a step, then make ``count`` of its journalled verdicts unverifiable."""
    take_step(session, step)
    verdicts = session.journal.read_verdicts(step)
    assert verdicts is not None
    chosen = pl.int_range(pl.len()) < count
    session.journal.write_verdicts(
        step,
        verdicts.with_columns(
            verdict=pl.when(chosen).then(pl.lit("unverifiable")).otherwise(pl.col("verdict").cast(pl.String)),
            cause=pl.when(chosen).then(pl.lit("gold")).otherwise(pl.lit("none")),
            reason=pl.when(chosen).then(pl.lit(reason)).otherwise("reason"),
        ).cast(dict(verdicts.schema)),  # type: ignore[arg-type]
    )


def updates_with(session: Session, **figures: float) -> list[Update]:
    named = {f"verify/{name}": value for name, value in figures.items()}
    return [update.model_copy(update={"metrics": named}) for update in session.journal.updates()]


def test_the_newest_unverifiable_answers_are_shown_and_all_counted(
    open_session: Callable[..., Session], page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting_answers, "SHOWN", 5)
    session = open_session()
    leave_open(session, 0, 3, "first")
    waiting = WaitingAnswers(session)
    waiting.show(updates_with(session, unverifiable_share=0.1))
    leave_open(session, 1, 4, "second")
    updates = updates_with(session, unverifiable_share=0.1)
    waiting.show(updates)
    waiting.show(updates)
    (_, early, _), (key, rows, description) = page.shown  # nothing new, nothing shown
    assert key == "unverifiable"
    assert [row["reason"] for row in early] == ["first"] * 3
    assert [(row["step"], row["reason"]) for row in rows] == [(1, "second")] * 4 + [(0, "first")]
    problems = pl.read_parquet(session.store.fetch(session.problems) / "problems.parquet")
    verdicts, rollouts = session.journal.read_verdicts(1), session.journal.read_rollouts(1)
    assert verdicts is not None
    last = rollouts.row(3, named=True)
    asked = problems.row(by_predicate=pl.col("id") == last["problem_id"], named=True)
    assert session._live is not None
    text = session._live.tokenizer.decode(last["response_ids"], skip_special_tokens=True)
    assert rows[0] == {
        "step": 1,
        "problem": asked["prompt"],
        "gold": asked["gold"],
        "answer": " ".join(text.split()),
        "cause": "gold",
        "reason": "second",
    }
    assert description.startswith(
        f"Training run {session.key[:12]} (agpo): 7, the newest 5 here. Answers that could not"
    )


def test_disagreements_have_both_readings_and_say_how_to_decide(
    open_session: Callable[..., Session], page: Page
) -> None:
    session = open_session()
    take_step(session, 0)
    first = session.journal.read_rollouts(0).row(0, named=True)
    found = (first["id"], first["problem_id"], "so\n it is 8\x00", "7", "8", "correct", "wrong")
    table = pl.DataFrame([found], schema=Disagreements.create_empty().schema, orient="row")
    write_table(session.journal.files, "steps/00000000/disagreements.parquet", table, Disagreements)
    WaitingAnswers(session).show(updates_with(session, disagreement_rate=0.5))
    ((key, (row,), description),) = page.shown
    assert key == "disagreements"
    assert (row["answer"], row["extracted"], row["verifier"], row["second reading"]) == (
        "so it is 8\ufffd",
        "8",
        "correct",
        "wrong",
    )
    assert "agpo review export OUT.csv" in description
    assert "verify.annotations=" in description


def test_a_run_with_nothing_to_decide_has_no_table_and_reads_nothing(
    open_session: Callable[..., Session], page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session()
    take_step(session, 0)
    waiting = WaitingAnswers(session)
    monkeypatch.setattr(session.journal, "read_rollouts", None)
    waiting.show(list(session.journal.updates()))
    waiting.end(1, RUN)
    assert page.shown == []
    assert page.logged == {}


def test_the_step_that_stopped_the_run_is_shown_and_logged(open_session: Callable[..., Session], page: Page) -> None:
    session = open_session()
    leave_open(session, 0, 2, "timeout")
    (session.journal.files.local_path() / "steps/00000000/update.json").unlink()
    waiting = WaitingAnswers(session)
    waiting.show([])
    waiting.end(0, RUN)
    ((key, rows, _),) = page.shown
    assert (key, len(rows)) == ("unverifiable", 2)
    assert page.logged == {"waiting/unverifiable": {"count": 2, "newest": rows}}


def test_texts_are_shortened_at_the_end_that_says_less() -> None:
    long = "a" * LONGEST + "b" * LONGEST
    assert shorten(long) == "a" * (LONGEST - 1) + "…"
    assert shorten_tail(long) == "…" + "b" * (LONGEST - 1)
    assert shorten(" a\n b ") == shorten_tail("a b") == "a b"
