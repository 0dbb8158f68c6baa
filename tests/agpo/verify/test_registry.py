from __future__ import annotations

import pytest

from agpo.verify import Item, Verdict, VerifierPool, registry
from agpo.verify.registry import Verifier, find_verifier, register


def test_an_in_process_verifier_can_be_added(monkeypatch: pytest.MonkeyPatch, pool: VerifierPool) -> None:
    monkeypatch.setattr(registry, "_VERIFIERS", dict(registry._VERIFIERS))
    register("echo", Verifier(3, lambda response, gold: Verdict("correct" if response == gold else "wrong")))
    verdicts = pool.verify([Item("echo", "a", "a"), Item("echo", "a", "b")])
    assert [verdict.verdict for verdict in verdicts] == ["correct", "wrong"]


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="verifier 'math' is registered already"):
        register("math", find_verifier("countdown"))


def test_a_verifier_that_fails_in_process_decides_nothing(monkeypatch: pytest.MonkeyPatch, pool: VerifierPool) -> None:
    def fail(response: str, gold: str) -> Verdict:
        raise KeyError(response)

    monkeypatch.setattr(registry, "_VERIFIERS", dict(registry._VERIFIERS))
    register("broken", Verifier(2, fail))
    verdict = pool.verify([Item("broken", "a", "b")])[0]
    assert (verdict.verdict, verdict.cause, verdict.reason) == ("unverifiable", "infrastructure", "crash")
    assert (verdict.verifier, verdict.version) == ("broken", 2)
