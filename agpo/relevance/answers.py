"""A teacher's answers about pairs, how they vote, and the labels that follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dataframely as dy
import polars as pl

from agpo.artifacts import digest
from agpo.records import Labels, Rollouts
from agpo.relevance.scheme import Scheme, read_gold
from agpo.relevance.votes import NO_VOTE, count_votes, decide_labels
from agpo.verify.label import find_label


class Answers(Rollouts):
    """The rollouts behind labels, and how each of them votes."""

    vote = dy.String(nullable=True)  # letter of the label that the answer ends with; null: it has none, or was cut off


def read_votes(rollouts: pl.DataFrame, tokenizer: Any, scheme: Scheme) -> pl.DataFrame:
    """Rollouts (`records.Rollouts`) with their votes. A truncated answer has none: what it would have said is unknown.

    Every distinct text is read once.
    """
    texts = _decode(tokenizer, rollouts["response_ids"].to_list())
    labels = {text: find_label(text, scheme).label for text in dict.fromkeys(texts)}
    letters = {text: label and label.letter for text, label in labels.items()}
    found = pl.Series([letters[text] for text in texts], dtype=pl.String)
    return rollouts.with_columns(vote=pl.when(~pl.col("truncated")).then(found))


def make_labels(
    pairs: pl.DataFrame,
    answers: pl.DataFrame,
    prompts: Mapping[str, Sequence[int]],
    scheme: Scheme,
    temperature: float,
    file: str,
) -> pl.DataFrame:
    """`records.Labels` of pairs (`records.Pairs`) by the votes of their `Answers`.

    Args:
        answers: equally many a pair, in the pairs' order.
        prompts: token ids by pair id, as they were asked.
        file: where the answers are kept.

    Raises:
        ValueError: a pair's gold is no label of the scheme.
    """
    letters = [label.letter for label in scheme]
    levels = answers["vote"].replace_strict(letters, range(len(letters)), default=NO_VOTE, return_dtype=pl.Int64)
    samples = len(answers) // len(pairs)
    votes = count_votes(levels.to_numpy().reshape(-1, samples), scheme)
    outcome = decide_labels(votes, samples, scheme)
    teacher, seed = answers["policy"][0], answers["seed"][0]
    asked = {pair: digest(prompts[pair]) for pair in pairs["id"]}
    ids = [digest([teacher, pair, scheme.name, asked[pair], samples, seed, temperature])[:16] for pair in asked]
    return pl.DataFrame(
        {
            "id": [f"label-{name}" for name in ids],
            "pair_id": pairs["id"],
            **{name: pairs[name] for name in ("query_id", "query", "title", "attributes", "case")},
            "label": [None if level == NO_VOTE else letters[level] for level in outcome.level.tolist()],
            "votes": votes.tolist(),
            "unread": samples - votes.sum(axis=1),
            "agreement": outcome.agreement,
            "expected_gain": pl.Series(outcome.expected_gain).fill_nan(None),
            "scheme": [scheme.name] * len(pairs),
            "teacher": [teacher] * len(pairs),
            "prompt": list(asked.values()),
            "rollouts": [file] * len(pairs),
            "gold": [_read_letter(pair, gold, scheme) for pair, gold in pairs.select("id", "gold").iter_rows()],
        },
        schema_overrides=Labels.create_empty().schema,
    )


def _decode(tokenizer: Any, answers: list[list[int]]) -> list[str]:
    """Texts without special tokens. A fast tokenizer is asked directly, which takes a third of its general call."""
    asked = tokenizer.backend_tokenizer.decode_batch if tokenizer.is_fast else tokenizer.batch_decode
    texts: list[str] = asked(answers, skip_special_tokens=True)
    return texts


def _read_letter(pair: str, gold: str | None, scheme: Scheme) -> str | None:
    if gold is None:
        return None
    found = read_gold(gold)
    if found is None or found[0] is not scheme:
        raise ValueError(f"pair {pair} has the gold {gold!r}; accepted: a label of scheme {scheme.name}, or none")
    return found[1].letter
