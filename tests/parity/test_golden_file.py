"""The golden vectors are what the installed peers say."""

from __future__ import annotations

import pytest
import torch

from tests.parity.golden import ask_peers, read_golden
from tests.parity.mappings import TOLERANCE

pytestmark = pytest.mark.parity


def test_the_peers_say_what_the_file_says() -> None:
    golden = read_golden()
    found = ask_peers(golden.batch)
    for package in ("trl", "verl"):
        assert golden.versions[package] == found.versions[package], "write them again: python -m tests.parity.golden"
    for mine, theirs in ((golden.advantages, found.advantages), (golden.losses, found.losses)):
        torch.testing.assert_close(mine, theirs, atol=TOLERANCE, rtol=0)
