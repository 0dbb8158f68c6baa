"""Texts in, probabilities out: which tokens a pair becomes, in what order rows come back, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from agpo.problems.pair import Pair
from agpo.relevance import find_scheme
from agpo.student.scorer import Scorer
from tests.agpo.student.tiny_student import WORDS, make_values, write_student

VALUES = make_values(find_scheme("esci4"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_student(tmp_path_factory.mktemp("student"), VALUES)


@pytest.fixture(scope="module")
def scorer(folder: Path) -> Scorer:
    return Scorer(folder)


def expect(query: str, ad: str = "", temperature: float = 1.0) -> NDArray[np.float64]:
    """Probabilities of a pair, from its words; without an ad, of a single text."""
    sides = [f"[CLS] {query} [SEP]".split(), f"{ad} [SEP]".split() if ad else []]
    logits = sum(
        VALUES[side, WORDS.index(word) if word in WORDS else 1] for side, words in enumerate(sides) for word in words
    )
    powers = np.exp(logits / temperature)
    return powers / powers.sum()


def test_a_pair_is_encoded_as_query_and_ad(scorer: Scorer) -> None:
    found = scorer.score(["red shoe"], ["blue shoe"])
    assert found.shape == (1, 4)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found[0], expect("red shoe", "blue shoe"), rtol=1e-5)


def test_attributes_follow_the_title(scorer: Scorer) -> None:
    found = scorer.score(["red shoe"] * 3, ["shoe"] * 3, ["blue case", None, ""])
    np.testing.assert_allclose(found[0], expect("red shoe", "shoe blue case"), rtol=1e-5)
    np.testing.assert_allclose(found[1:], [expect("red shoe", "shoe")] * 2, rtol=1e-5)


def test_labels_go_from_least_to_most_relevant(scorer: Scorer) -> None:
    assert scorer.scheme == "esci4"
    assert [(label.letter, label.name, label.relevant, label.gain) for label in scorer.labels] == [
        ("I", "irrelevant", False, 0.0),
        ("C", "complement", False, 0.01),
        ("S", "substitute", True, 0.1),
        ("E", "exact", True, 1.0),
    ]


def test_temperature_divides_the_logits(tmp_path: Path) -> None:
    found = Scorer(write_student(tmp_path, VALUES, temperature=2.5)).score(["red"], ["lamp"])
    np.testing.assert_allclose(found[0], expect("red", "lamp", temperature=2.5), rtol=1e-5)


def test_a_text_template_gives_what_the_policy_was_asked(tmp_path: Path) -> None:
    template = Pair("{query}", "{title}").render() + "{attributes}"
    scorer = Scorer(write_student(tmp_path, VALUES, templates=[template], length=64))
    pairs = [Pair("red shoe", "blue lamp", "case: blue\nfor: red"), Pair("{title}", "red lamp")]
    assert scorer._render(*zip(*pairs, strict=True)) == [(pair.render(),) for pair in pairs]
    found = scorer.score(["red shoe"], ["blue lamp"])
    np.testing.assert_allclose(found[0], expect("Query : red shoe Ad : blue lamp"), rtol=1e-5)


@pytest.mark.parametrize("batch", [1, 2, 7, 64])
def test_rows_come_back_in_their_order(scorer: Scorer, batch: int) -> None:
    random = np.random.default_rng(1)
    texts = [" ".join(random.choice(WORDS[4:], size=size)) for size in random.integers(1, 8, 40)]
    queries, titles = texts[:20], texts[20:]
    expected = [expect(query, title) for query, title in zip(queries, titles, strict=True)]
    np.testing.assert_allclose(scorer.score(queries, titles, batch=batch), expected, rtol=1e-5)


def test_a_long_pair_loses_the_end_of_its_longer_text(scorer: Scorer) -> None:
    found = scorer.score(["red shoe"], [" ".join(["lamp"] * 11 + ["case"] * 500)])
    np.testing.assert_allclose(found[0], expect("red shoe", " ".join(["lamp"] * 11)), rtol=1e-5)


def test_blanks_are_joined_as_where_pairs_are_prepared(scorer: Scorer) -> None:
    found = scorer.score([" red\t shoe\n"], ["blue\r\nlamp "], ["case:  for\n\n blue "])
    np.testing.assert_array_equal(found, scorer.score(["red shoe"], ["blue lamp"], ["case: for\nblue"]))


def test_no_rows_are_no_error(scorer: Scorer) -> None:
    assert scorer.score([], []).shape == (0, 4)


@pytest.mark.parametrize(
    ("queries", "titles", "attributes", "message"),
    [
        (["red", ""], ["lamp", "lamp"], None, r"row 2: query is ''; accepted: a text that is not blank"),
        (["red", "red"], ["lamp", " \n"], None, r"row 2: title is ' \\n'; accepted: a text that is not blank"),
        ([None], ["lamp"], None, r"row 1: query is missing"),
        (["red"], [3.5], None, r"row 1: title is 3.5, of type float; accepted: a text"),
        (["red"], ["lamp"], [["a"]], r"row 1: attributes is \['a'\], of type list; accepted: a text"),
        (["red \ud800"], ["lamp"], None, r"row 1: query is .*; accepted: a text without lone surrogates"),
        (["red"], ["lamp", "lamp"], None, r"1 queries, 2 titles and 1 attributes: not one each"),
    ],
    ids=["empty", "blank", "missing", "number", "list", "surrogate", "lengths"],
)
def test_what_cannot_be_read_is_named(
    scorer: Scorer, queries: list[Any], titles: list[Any], attributes: list[Any] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        scorer.score(queries, titles, attributes)


@pytest.mark.parametrize(
    ("other", "error", "message"),
    [
        ({"version": 2}, ValueError, r"student.json is of version 2; accepted: 1"),
        ({"inputs": ["ids"]}, ValueError, r"student.json names inputs \['ids'\]; accepted: input_ids, attention_mask"),
        ({"model": "lost.onnx"}, FileNotFoundError, r"lost.onnx: the student's graph is missing"),
    ],
    ids=["version", "inputs", "graph"],
)
def test_a_folder_that_cannot_be_served_is_refused(
    tmp_path: Path, other: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Scorer(write_student(tmp_path, VALUES, **other))


def test_the_file_stands_alone(folder: Path, tmp_path: Path) -> None:
    """As MLflow ships it: in another folder, in a process without `agpo`, torch and transformers."""
    source = Path(sys.modules[Scorer.__module__].__file__ or "")
    (tmp_path / "scorer.py").write_text(source.read_text())
    code = (
        "import sys; from scorer import Scorer; "
        f"print(Scorer({str(folder)!r}).score(['red'], ['lamp']).shape, "
        "sorted({name.partition('.')[0] for name in sys.modules} & {'agpo', 'torch', 'transformers', 'sklearn'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(1, 4) []"
