"""What a training run has journalled, for people: its answers with their verdicts."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agpo.artifacts import Store
from agpo.journal import Journal
from tasks.location import open_store

_LISTED = 10  # runs named in an error
_STYLES = {"correct": "green", "wrong": "red", "unverifiable": "yellow"}


class Answer(NamedTuple):
    step: int
    problem: str
    verdict: str
    reason: str
    logprob: float  # mean over the tokens, natural log
    token_ids: list[int]


def show_rollouts(run: str, wrong: bool, limit: int) -> None:
    """Print the newest answers of a training run as a table.

    ``run`` is the beginning of its key, or of the key of a policy that it made. Raises ValueError, which names the
    known runs, where that fits none or several.
    """
    store = open_store()
    journal = find_run(store, run)
    answers = list(islice(read_answers(journal, wrong), limit))
    if not answers:
        raise ValueError(f"{journal.files.uri} has no {'wrong' if wrong else 'verified'} answer")
    table = Table("Step", "Problem", "Verdict", "Reason", "Log-prob/token", "Text", box=None, pad_edge=False)
    for answer, text in zip(answers, _decode(store, journal, answers), strict=True):
        verdict = Text(answer.verdict, style=_STYLES[answer.verdict])
        columns = (str(answer.step), answer.problem, verdict, answer.reason, f"{answer.logprob:.3f}")
        # As text, because a model may write what Rich reads as markup.
        table.add_row(*(Text(column) if isinstance(column, str) else column for column in columns), Text(text))
    Console().print(table)


def find_run(store: Store, beginning: str) -> Journal:
    """The journal of the only run whose key, or a policy's key of which, begins so."""
    known = store.files.folders("journal")
    if not known:
        raise ValueError(f"there is no training run in {store.files.uri}")
    made = {_read_maker(store, key) for key in store.files.folders("policy") if key.startswith(beginning)}
    found = [key for key in known if key.startswith(beginning) or key in made]
    if len(found) != 1:
        what = f"{len(found)} training runs begin" if found else "no training run begins"
        runs = "\n  ".join(_describe(store, key) for key in (found or known)[:_LISTED])
        raise ValueError(f"{what} with {beginning!r}; in {store.files.uri} there are:\n  {runs}")
    return _open(store, found[0])


def read_answers(journal: Journal, wrong: bool) -> Iterator[Answer]:
    """Verified answers, those of the newest step first; with ``wrong`` only wrong ones."""
    for step in sorted(map(int, journal.files.folders("steps")), reverse=True):
        verdicts = journal.read_verdicts(step)
        if verdicts is None:
            continue
        rows = journal.read_rollouts(step).join(verdicts.drop("verifier", "version"), on="id", maintain_order="left")
        if wrong:
            rows = rows.filter(pl.col("verdict") == "wrong")
        for row in rows.iter_rows(named=True):
            mean = sum(row["logprobs"]) / len(row["logprobs"])
            yield Answer(step, row["problem_id"], row["verdict"], row["reason"], mean, row["response_ids"])


def _open(store: Store, key: str) -> Journal:
    return Journal(store.files.child(f"journal/{key}"))


def _read_maker(store: Store, policy: str) -> str:
    """The key of the training run that made a policy; empty where none did."""
    ref = store.find("policy", policy)
    return "" if ref is None else str(store.manifest(ref).summary.get("run", ""))


def _describe(store: Store, key: str) -> str:
    journal = _open(store, key)
    objective = journal.read_run()["settings"]["objective"]["kind"]
    return f"{key[:12]}  {objective}, {sum(1 for _ in journal.updates())} steps"


def _decode(store: Store, journal: Journal, answers: list[Answer]) -> list[str]:
    """The answers' text, with what a terminal would not print as it is escaped."""
    base = store.find("policy", journal.read_run()["base"])
    if base is None:
        raise ValueError(f"the base policy of {journal.files.uri}, whose tokenizer is needed, is not in the store")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(Path(store.fetch(base)), local_files_only=True)
    texts = tokenizer.batch_decode([answer.token_ids for answer in answers], skip_special_tokens=True)
    return ["".join(_show(character) for character in text) for text in texts]


def _show(character: str) -> str:
    return character if character.isprintable() or character == "\n" else character.encode("unicode_escape").decode()
