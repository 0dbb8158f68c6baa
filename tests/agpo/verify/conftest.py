from __future__ import annotations

from collections.abc import Iterator

import pytest

from agpo.verify import VerifierPool
from agpo.verify.registry import Verifier, register

register("hazard", Verifier(7, lambda response, gold: None, pooled="tests.agpo.verify.hazards"))
register("math-verify", Verifier(1, lambda response, gold: None, pooled="agpo.verify.symbolic"))


@pytest.fixture(scope="session")
def pool() -> Iterator[VerifierPool]:
    """One for all: starting it costs more than most tests."""
    with VerifierPool(workers=2, timeout=5.0, memory=256) as pool:
        yield pool
