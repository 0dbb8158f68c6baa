"""What a student has to beat: models without an encoder, trained on the judged training pairs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from agpo.student.examples import Examples, FloatArray

_WORD = re.compile(r"\w+")
_CROSSES = 1 << 17  # hashed features
_GRAM = 3  # letters

Texts = Sequence[tuple[str, ...]]


def predict_baselines(train: Examples, held_out: Examples) -> dict[str, FloatArray]:
    """Probabilities [held-out pairs, labels] by baseline.

    *majority*: the shares of the labels. The others are logistic regressions. *tfidf*: on words and pairs of
    neighbouring words. *overlap*: on these and counts of what query and ad share. *crosses*: on the counts and on all
    pairs of a word of the query and a word of the ad. Their regularisation is our choice.
    """
    texts, asked = train.render("pair"), held_out.render("pair")
    shares = train.targets.mean(axis=0)
    found = {"majority": np.tile(shares, (len(held_out), 1))}
    if (shares > 0).sum() < 2:
        return found  # there is nothing to tell apart
    features: dict[str, Callable[[Texts, Texts], tuple[Any, Any]]] = {
        "tfidf": _weigh_words,
        "overlap": _join(_weigh_words, _count_shared),
        "crosses": _join(_cross_words, _count_shared),
    }
    for name, build in features.items():
        found[name] = _regress(*build(texts, asked), train, shape=(len(held_out), len(shares)))
    return found


def _regress(rows: Any, asked: Any, train: Examples, shape: tuple[int, int]) -> FloatArray:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=3.0, max_iter=1000).fit(rows, train.levels)
    probabilities = np.zeros(shape)
    probabilities[:, model.classes_] = model.predict_proba(asked)
    return probabilities


def _join(*builds: Callable[[Texts, Texts], tuple[Any, Any]]) -> Callable[[Texts, Texts], tuple[Any, Any]]:
    def build(texts: Texts, asked: Texts) -> tuple[Any, Any]:
        from scipy.sparse import hstack

        parts = [part(texts, asked) for part in builds]
        return tuple(hstack(side).tocsr() for side in zip(*parts, strict=True))

    return build


def _weigh_words(texts: Texts, asked: Texts) -> tuple[Any, Any]:
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), token_pattern=_WORD.pattern)
    joined = [[" | ".join(text) for text in side] for side in (texts, asked)]
    return vectorizer.fit_transform(joined[0]), vectorizer.transform(joined[1])


def _cross_words(texts: Texts, asked: Texts) -> tuple[Any, Any]:
    from sklearn.feature_extraction import FeatureHasher

    hasher = FeatureHasher(_CROSSES, input_type="string", alternate_sign=False)
    crossed = [[_cross(*text) for text in side] for side in (texts, asked)]
    return hasher.transform(crossed[0]), hasher.transform(crossed[1])


def _cross(query: str, ad: str) -> list[str]:
    return [f"{wanted} {offered}" for wanted in sorted(_words(query)) for offered in sorted(_words(ad))]


def _count_shared(texts: Texts, asked: Texts) -> tuple[FloatArray, FloatArray]:
    counts, others = (np.array([_overlap(*text) for text in side]) for side in (texts, asked))
    mean, spread = counts.mean(axis=0), counts.std(axis=0) + 1e-9
    return (counts - mean) / spread, (others - mean) / spread


def _overlap(query: str, ad: str) -> list[float]:
    """Shared words, words of one side only, share of the query's words and letter groups in the ad, all of them."""
    wanted, offered = _words(query), _words(ad)
    shared = len(wanted & offered)
    grams, others = _letter_groups(query), _letter_groups(ad)
    return [
        shared,
        len(wanted) - shared,
        len(offered) - shared,
        shared / max(1, len(wanted)),
        len(grams & others) / max(1, len(grams)),
        shared == len(wanted),
    ]


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))


def _letter_groups(text: str) -> set[str]:
    spaced = f" {text.lower()} "
    return {spaced[at : at + _GRAM] for at in range(len(spaced) - _GRAM + 1)}
