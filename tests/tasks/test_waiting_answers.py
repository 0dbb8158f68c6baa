"""The answers of a training run that wait for people, on the page of its flow run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from agpo.artifacts.table import write_table
from agpo.journal import Update
from agpo.records import Disagreements
from agpo.session import Session
from tasks import waiting_answers
from tasks.live_text import LiveText
from tasks.tracking import RunRef
from tasks.waiting_answers import LONGEST, WaitingAnswers, quote, shorten, shorten_tail
from tests.agpo.session_start import open_session, start, store, take_step

__all__ = ["open_session", "start", "store"]

RUN = RunRef(tracking_uri="", experiment_id="", run_id="")


class Page:
    """Stands for the flow run's page and the MLflow run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shown: list[tuple[str, str, str]] = []
        self.logged: dict[str, Any] = {}
        monkeypatch.setattr(LiveText, "show", lambda live, *content: self.shown.append((live.key, *content)))
        monkeypatch.setattr(waiting_answers, "log_json", lambda run, content, name: self.logged.update({name: content}))


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


def read_titles(shown: str) -> list[str]:
    return [line.removeprefix("- ") for line in shown.splitlines() if line.startswith("- ")]


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
    (_, early, _), (key, shown, description) = page.shown  # nothing new, nothing shown
    assert key == "unverifiable"
    assert read_titles(early) == ["step 0: **first, cause gold**"] * 3
    assert read_titles(shown) == ["step 1: **second, cause gold**"] * 4 + ["step 0: **first, cause gold**"]
    problems = pl.read_parquet(session.store.fetch(session.problems) / "problems.parquet")
    verdicts, rollouts = session.journal.read_verdicts(1), session.journal.read_rollouts(1)
    assert verdicts is not None
    last = rollouts.row(3, named=True)
    asked = problems.row(by_predicate=pl.col("id") == last["problem_id"], named=True)
    assert session._live is not None
    text = session._live.tokenizer.decode(last["response_ids"], skip_special_tokens=True)
    assert shown.splitlines()[1:4] == [
        f"    - problem: ` {asked['prompt']} `",
        f"    - gold: ` {asked['gold']} `",
        f"    - answer: ` {' '.join(text.split())} `",
    ]
    assert description.startswith(
        f"7 answers of training run {session.key[:12]} (agpo), the newest 5 below. They could not be verified"
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
    ((key, shown, description),) = page.shown
    assert key == "disagreements"
    assert read_titles(shown) == ["step 0: **correct for the verifier, wrong at second reading**"]
    assert shown.splitlines()[3:] == ["    - answer: ` so it is 8\ufffd `", "    - extracted: ` 8 `"]
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
    ((key, shown, _),) = page.shown
    assert (key, len(read_titles(shown))) == ("unverifiable", 2)
    ((name, logged),) = page.logged.items()
    assert (name, logged["count"]) == ("waiting/unverifiable", 2)
    assert [(row["step"], row["reason"], row["cause"]) for row in logged["newest"]] == [(0, "timeout", "gold")] * 2


def test_texts_are_shown_to_the_letter() -> None:
    assert quote("2*3*4 <b>") == "` 2*3*4 <b> `"
    assert quote("` and ``") == "``` ` and `` ```"
    assert quote("") == "none"


def test_texts_are_shortened_at_the_end_that_says_less() -> None:
    long = "a" * LONGEST + "b" * LONGEST
    assert shorten(long) == "a" * (LONGEST - 1) + "…"
    assert shorten_tail(long) == "…" + "b" * (LONGEST - 1)
    assert shorten(" a\n b ") == shorten_tail("a b") == "a b"
