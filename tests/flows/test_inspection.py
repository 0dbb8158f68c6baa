from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from agpo.artifacts import Store
from agpo.session import Session
from agpo.settings import TrainRun
from flows.inspection import find_run, read_answers, show_rollouts
from tests.agpo.session_start import RUN, Start, start, take_step

__all__ = ["start"]


@pytest.fixture(scope="module")
def trained(start: Start, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Session]]:
    """A store with two runs: one of two steps that is published, one of one step with the rollouts of a second."""
    folder = Path(shutil.copytree(start.folder, tmp_path_factory.mktemp("trained") / "store"))
    sessions = []
    for settings in ({"steps": 2}, {"seed": 1}):
        run = TrainRun(**{**RUN.model_dump(), **settings})
        with Session(run, Store(folder), start.problems, start.base) as session:
            take_step(session, 0)
            if run.steps == 2:
                take_step(session, 1)
                session.publish()
            else:
                session.generate(1)
        sessions.append(session)
    return folder, sessions


@pytest.fixture
def show(
    trained: tuple[Path, list[Session]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., list[str]]:
    """Lines that the command prints below the table's head."""
    monkeypatch.setenv("AGPO_STORE", str(trained[0]))
    monkeypatch.setenv("COLUMNS", "160")

    def run(beginning: str, wrong: bool = False, limit: int = 100) -> list[str]:
        show_rollouts(beginning, wrong, limit)
        head, *lines = capsys.readouterr().out.splitlines()
        assert head.split() == ["Step", "Problem", "Verdict", "Reason", "Log-prob/token", "Text"]
        return [line.rstrip() for line in lines]

    return run


def test_the_newest_steps_come_first(show: Callable[..., list[str]], trained: tuple[Path, list[Session]]) -> None:
    session = trained[1][0]
    lines = show(session.key[:8])
    assert [line.split()[0] for line in lines] == ["1"] * 16 + ["0"] * 16
    verdicts = session.journal.read_verdicts(1)
    assert verdicts is not None
    assert [line.split()[2] for line in lines[:16]] == verdicts["verdict"].to_list()
    assert "=" in lines[0]  # an equation of the puzzle


def test_only_wrong_ones_up_to_a_limit(show: Callable[..., list[str]], trained: tuple[Path, list[Session]]) -> None:
    lines = show(trained[1][0].key, wrong=True, limit=3)
    assert [line.split()[2] for line in lines] == ["wrong"] * 3


def test_a_policy_names_its_run(show: Callable[..., list[str]], trained: tuple[Path, list[Session]]) -> None:
    session = trained[1][0]
    assert show(session.trained_key[:10]) == show(session.key)


def test_a_step_without_verdicts_is_left_out(
    show: Callable[..., list[str]], trained: tuple[Path, list[Session]]
) -> None:
    assert {line.split()[0] for line in show(trained[1][1].key)} == {"0"}


def test_the_log_prob_is_that_of_a_token(trained: tuple[Path, list[Session]]) -> None:
    session = trained[1][0]
    first = session.journal.read_rollouts(1).row(0, named=True)
    answer = next(read_answers(session.journal, wrong=False))
    assert answer.logprob == pytest.approx(sum(first["logprobs"]) / len(first["response_ids"]))
    assert answer.token_ids == first["response_ids"]


def test_an_unknown_run_lists_the_known_ones(trained: tuple[Path, list[Session]]) -> None:
    folder, sessions = trained
    with pytest.raises(ValueError, match="no training run begins with 'xyz'") as caught:
        find_run(Store(folder), "xyz")
    assert f"{sessions[0].key[:12]}  agpo, 2 steps" in str(caught.value)
    assert f"{sessions[1].key[:12]}  agpo, 1 steps" in str(caught.value)


def test_an_ambiguous_beginning_lists_the_runs_that_fit(trained: tuple[Path, list[Session]]) -> None:
    with pytest.raises(ValueError, match="2 training runs begin with ''"):
        find_run(Store(trained[0]), "")


def test_a_store_without_runs_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no training run in"):
        find_run(Store(tmp_path), "abc")


def test_a_run_without_verdicts_says_so(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGPO_STORE", str(shutil.copytree(start.folder, tmp_path / "store")))
    with Session(RUN, Store(tmp_path / "store"), start.problems, start.base) as session:
        session.generate(0)
    with pytest.raises(ValueError, match="has no wrong answer"):
        show_rollouts(session.key, wrong=True, limit=5)


def test_what_a_model_writes_cannot_drive_the_terminal(
    trained: tuple[Path, list[Session]], show: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(*_: object, **__: object) -> list[str]:
        return ["\x1b[31m[bold]ü\r"]

    monkeypatch.setattr("transformers.PreTrainedTokenizerFast.batch_decode", write)
    (line,) = show(trained[1][0].key, limit=1)
    assert line.endswith(r"\x1b[31m[bold]ü\r")
