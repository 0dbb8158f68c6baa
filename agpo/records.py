"""The tables that stages exchange: columns, types, meaning and row ids, declared once.

Tables are Parquet files. A row's id is stable: it depends on what the row is, never on its position.
"""

from __future__ import annotations

import dataframely as dy
import polars as pl


class Problems(dy.Schema):
    """What a policy is asked, and what decides whether an answer is right.

    Sets: Countdown has *in_distribution* in every split, and *hard* beside it in selection and confirmation; rows of a
    table or data set are *train* in train and *held_out* in selection and confirmation; the shop has *plain* and *hard*
    in every split.
    """

    id = dy.String(primary_key=True, min_length=1)
    prompt = dy.String(nullable=False, min_length=1)  # the user's text, rendered from a named template
    gold = dy.String(nullable=False, min_length=1)  # the verifier's reference, in the form that the verifier reads
    verifier = dy.String(nullable=False, min_length=1)  # math | countdown | label | …
    split = dy.Enum(["train", "selection", "confirmation"], nullable=False)
    set = dy.String(nullable=False, min_length=1)  # the named problem set inside a split

    @dy.rule()
    def prompt_not_blank(cls) -> pl.Expr:
        return pl.col("prompt").str.strip_chars().str.len_chars() > 0

    @dy.rule()
    def gold_not_blank(cls) -> pl.Expr:
        return pl.col("gold").str.strip_chars().str.len_chars() > 0


class Pairs(dy.Schema):
    """Query–ad pairs by their parts. A judged pair has a problem with its id, whose verifier is `label`."""

    id = dy.String(primary_key=True, min_length=1)
    query_id = dy.String(nullable=False, min_length=1)  # one for all pairs of a query; no held-out query is trained on
    query = dy.String(nullable=False, min_length=1)
    title = dy.String(nullable=False, min_length=1)
    attributes = dy.String(nullable=False)  # of the ad, lines "key: value"
    prompt = dy.String(nullable=False, min_length=1)  # as a problem's
    gold = dy.String(nullable=True, min_length=1)  # as a problem's; of unlabelled pairs for audits only, or null
    split = dy.Enum(["train", "selection", "confirmation", "unlabelled"], nullable=False)
    case = dy.String(nullable=True)  # what makes the pair hard, where that is known


class Demonstrations(dy.Schema):
    """Prompts with an answer to imitate, for the warm start."""

    id = dy.String(primary_key=True, min_length=1)
    prompt = dy.String(nullable=False, min_length=1)
    response = dy.String(nullable=False, min_length=1)


class Quarantine(dy.Schema):
    """Source rows that were refused, with the reason; nothing is lost."""

    source = dy.String(nullable=False)  # file or data set
    row = dy.Int64(nullable=False)  # line (JSONL; a CSV row's first) or row number (Parquet, data set), from 1
    reason = dy.String(nullable=False)  # missing field, wrong type, empty gold, duplicate id, …; receipts count these
    detail = dy.String(nullable=False)  # the field, what was found and what is accepted
    content = dy.String(nullable=False)  # the raw line, or the row as JSON


class Rollouts(dy.Schema):
    """One sampled answer a row. Token ids are the record of truth; text is derived from them."""

    id = dy.String(primary_key=True, min_length=1)  # step/problem_id/sample
    problem_id = dy.String(nullable=False)
    sample_number = dy.Int32(nullable=False, min=0, alias="sample")  # `sample` alone would hide a method of dy.Schema
    prompt_ids = dy.List(dy.Int32(nullable=False), nullable=False)
    response_ids = dy.List(dy.Int32(nullable=False), nullable=False)  # ends with the stop token unless truncated
    logprobs = dy.List(dy.Float32(nullable=False), nullable=False)  # the sampler's, one per response token, natural log
    truncated = dy.Bool(nullable=False)  # reached the token limit without a stop token
    policy = dy.String(nullable=False)  # key of the policy that was sampled
    seed = dy.Int64(nullable=False)

    @dy.rule()
    def one_logprob_per_token(cls) -> pl.Expr:
        return pl.col("logprobs").list.len() == pl.col("response_ids").list.len()


class Verdicts(dy.Schema):
    """What the verifier decided about one rollout."""

    id = dy.String(primary_key=True, min_length=1)  # the rollout's
    verdict = dy.Enum(["correct", "wrong", "unverifiable"], nullable=False)
    cause = dy.Enum(["none", "response", "gold", "infrastructure"], nullable=False)
    reason = dy.String(nullable=False)  # empty when correct; else missing, malformed, mismatch, timeout, …
    extracted = dy.String(nullable=True)  # the final answer found in the response
    seconds = dy.Float64(nullable=False, min=0)  # CPU seconds
    verifier = dy.String(nullable=False)
    version = dy.Int32(nullable=False)


class Disagreements(dy.Schema):
    """Answers that the verifier and the second reading of its audit decided differently."""

    id = dy.String(primary_key=True, min_length=1)  # the rollout's
    problem_id = dy.String(nullable=False)
    tail = dy.String(nullable=False)  # the response's end
    gold = dy.String(nullable=False)
    extracted = dy.String(nullable=True)  # as in the verdict
    first = dy.Enum(["correct", "wrong"], nullable=False)  # the verifier's verdict
    second = dy.Enum(["correct", "wrong"], nullable=False)


class Annotations(dy.Schema):
    """People's decisions about answers, for all later verdicts about the same answer."""

    problem_id = dy.String(primary_key=True)
    gold = dy.String(primary_key=True)
    extracted = dy.String(primary_key=True)  # the whole answer, as in the verdict
    decision = dy.Enum(["correct", "wrong"], nullable=False)


class Labels(dy.Schema):
    """What a teacher's votes say about one pair: a row a pair, self-contained for whoever takes the table elsewhere."""

    id = dy.String(primary_key=True, min_length=1)  # of the label: another teacher's label of the pair has another
    pair_id = dy.String(nullable=False, min_length=1)
    query_id = dy.String(nullable=False, min_length=1)
    query = dy.String(nullable=False, min_length=1)
    title = dy.String(nullable=False, min_length=1)
    attributes = dy.String(nullable=False)
    label = dy.String(nullable=True)  # letter of the scheme; null when no answer had a label
    votes = dy.List(dy.Int32(nullable=False), nullable=False)  # of each label, from least to most relevant
    unread = dy.Int32(nullable=False, min=0)  # answers without a label, or cut off before it
    agreement = dy.Float64(nullable=False, min=0, max=1)  # share of all answers that vote for the label
    expected_gain = dy.Float64(nullable=True, min=0, max=1)  # mean gain of the votes
    scheme = dy.String(nullable=False)
    teacher = dy.String(nullable=False)  # key of the policy that voted
    prompt = dy.String(nullable=False)  # digest of the prompt as it was asked
    rollouts = dy.String(nullable=False)  # file of the artifact with the answers
    gold = dy.String(nullable=True)  # letter, where a judgement is known; never shown to the teacher
    case = dy.String(nullable=True)


class Predictions(dy.Schema):
    """What a model says about judged pairs that it was not trained on."""

    model = dy.String(primary_key=True)  # student, or a baseline's name
    pair_id = dy.String(primary_key=True)
    query_id = dy.String(nullable=False)
    case = dy.String(nullable=True)
    gold = dy.String(nullable=False)  # letter
    label = dy.String(nullable=False)  # letter
    probabilities = dy.List(dy.Float64(nullable=False), nullable=False)  # from least to most relevant


class Counts(dy.Schema):
    """The outcome of n samples of one problem; every boundary metric is a function of these rows."""

    problem_id = dy.String(primary_key=True, min_length=1)
    set = dy.String(nullable=False)
    n = dy.Int32(nullable=False, min=1)  # samples drawn
    correct = dy.Int32(nullable=False, min=0)
    wrong = dy.Int32(nullable=False, min=0)  # truncated answers without a right one included
    unverifiable = dy.Int32(nullable=False, min=0)  # leave pass@k: its n is correct + wrong
    truncated = dy.Int32(nullable=False, min=0)
    missing = dy.Int32(nullable=False, min=0)  # wrong because no final answer was found
    distinct_correct = dy.Int32(nullable=False, min=0)  # different right responses
    tokens = dy.Int64(nullable=False, min=0)  # response tokens
    logprob = dy.Float64(nullable=False)  # sum of the sampler's log-probs; −logprob/tokens estimates the token entropy

    @dy.rule()
    def outcomes_sum_to_n(cls) -> pl.Expr:
        return pl.col("correct") + pl.col("wrong") + pl.col("unverifiable") == pl.col("n")


def rollout_id(step: int, problem_id: str, sample: int) -> str:
    return f"{step}/{problem_id}/{sample}"
