"""Answers of a training run that wait for people, on its pages: the newest of them, and how many there are."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import polars as pl

from agpo.artifacts.table import read_table
from agpo.journal import Update
from agpo.records import Problems
from agpo.session import Session
from tasks.live_text import LiveText
from tasks.tracking import RunRef, log_json

SHOWN = 20  # answers on a page
LONGEST = 300  # characters of a text
_TEXTS = ("problem", "gold", "answer", "extracted")
_UNVERIFIABLE = (
    "They could not be verified and left the loss. Cause gold: mend the gold in the source; response: raise "
    "verify.timeout or verify.memory if people would accept the answer; infrastructure: mend the machine"
)
_DISAGREEMENTS = (
    "The verifier and the second reading of its audit decide them differently: `agpo review export OUT.csv`, "
    "fill in the column decision, `agpo review import OUT.csv ANNOTATIONS.parquet`; later runs use them with "
    "`--set verify.annotations=ANNOTATIONS.parquet`"
)


class WaitingAnswers:
    """Reads them from the journal, of each step once, and only where the step's figures say that it has some."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._read = 0  # finished steps
        self.unverifiable = _Waiting("unverifiable", _UNVERIFIABLE, "{reason}, cause {cause}")
        readings = "{verifier} for the verifier, {second reading} at second reading"
        self.disagreements = _Waiting("disagreements", _DISAGREEMENTS, readings)

    def show(self, updates: Sequence[Update]) -> None:
        """Show the lists to which finished steps (``updates``: all of the run, in order) add answers."""
        for update in updates[self._read :]:
            if update.metrics.get("verify/unverifiable_share"):
                self.unverifiable.add(update.step, self._read_unverifiable(update.step))
            if update.metrics.get("verify/disagreement_rate"):
                self.disagreements.add(update.step, self._read_disagreements(update.step))
        self._read = len(updates)
        self._show()

    def end(self, step: int, run: RunRef) -> None:
        """Read those of the unfinished ``step``, which may be what stopped the run, and log the lists to MLflow."""
        self.unverifiable.add(step, self._read_unverifiable(step))
        self._show()
        for waiting in (self.unverifiable, self.disagreements):
            if waiting.count:
                log_json(run, {"count": waiting.count, "newest": waiting.newest}, f"waiting/{waiting.key}")

    def _show(self) -> None:
        for waiting in (self.unverifiable, self.disagreements):
            waiting.show(f"training run {self.session.key[:12]} ({self.session.run.objective.kind})")

    def _read_unverifiable(self, step: int) -> Iterator[dict[str, Any]]:
        verdicts = self.session.journal.read_verdicts(step)
        if verdicts is None:
            return
        left = verdicts.filter(pl.col("verdict") == "unverifiable")
        if left.is_empty():
            return
        rows = left.join(self.session.journal.read_rollouts(step), on="id", maintain_order="left")
        texts = self._tokenizer.batch_decode(rows["response_ids"].to_list(), skip_special_tokens=True)
        for row, text in zip(rows.iter_rows(named=True), texts, strict=True):
            yield {
                "step": step,
                **self._describe_problem(row["problem_id"]),
                "answer": shorten_tail(text),
                "cause": row["cause"],
                "reason": row["reason"],
            }

    def _read_disagreements(self, step: int) -> Iterator[dict[str, Any]]:
        for row in self.session.journal.read_disagreements(step).iter_rows(named=True):
            yield {
                "step": step,
                **self._describe_problem(row["problem_id"]),
                "answer": shorten_tail(row["tail"]),
                "extracted": shorten(row["extracted"] or ""),
                "verifier": row["first"],
                "second reading": row["second"],
            }

    def _describe_problem(self, name: str) -> dict[str, str]:
        prompt, gold = self._problems[name]
        return {"problem": shorten(prompt), "gold": shorten(gold)}

    @cached_property
    def _problems(self) -> dict[str, tuple[str, str]]:
        """Prompt and gold by id."""
        folder = self.session.store.fetch(self.session.problems)
        rows = read_table(folder, "problems.parquet", Problems).select("id", "prompt", "gold").iter_rows()
        return {name: (prompt, gold) for name, prompt, gold in rows}

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.session.store.fetch(self.session.base), local_files_only=True)


class _Waiting:
    """One of the lists. ``count``: of all answers; ``title``: of an answer, with names of its fields in braces."""

    def __init__(self, key: str, note: str, title: str) -> None:
        self.key, self.note, self.title = key, note, title
        self.count = self._shown = 0
        self._steps: set[int] = set()
        self._rows: deque[dict[str, Any]] = deque(maxlen=SHOWN)
        self._page = LiveText(key)

    @property
    def newest(self) -> list[dict[str, Any]]:
        return list(reversed(self._rows))

    def add(self, step: int, rows: Iterator[dict[str, Any]]) -> None:
        """Answers of a step; a step that is known already is not read."""
        if step not in self._steps:
            for row in rows:
                self._steps.add(step)
                self._rows.append(row)
                self.count += 1

    def show(self, run: str) -> None:
        if self.count > self._shown:
            answers = "\n".join(_itemize(row, self.title) for row in self.newest)
            self._page.show(answers, f"{self.count} answers of {run}, the newest {len(self._rows)} below. {self.note}")
            self._shown = self.count


def _itemize(row: Mapping[str, Any], title: str) -> str:
    """An item of a list: Prefect's pages do not wrap the cells of a table, and they read bare text as Markdown."""
    texts = (f"    - {name}: {quote(row[name])}" for name in _TEXTS if name in row)
    return "\n".join([f"- step {row['step']}: **{title.format_map(row)}**", *texts])


def quote(text: str) -> str:
    """One line as literal Markdown (CommonMark 0.31, section 6.1)."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if text else "none"


def shorten(text: str) -> str:
    """The beginning of a text, in one line of printable characters."""
    line = _print(text)
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def shorten_tail(text: str) -> str:
    """As `shorten`, the end: an answer ends with what is verified."""
    line = _print(text)
    return line if len(line) <= LONGEST else f"…{line[1 - LONGEST :]}"


def _print(text: str) -> str:
    return "".join(character if character.isprintable() else "\ufffd" for character in " ".join(text.split()))
