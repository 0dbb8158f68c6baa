"""Code run in a forked child, as another process of the same machine."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from typing import Any

import pytest


def run_forked(action: Callable[[], object]) -> int:
    """Run ``action`` in a child and wait for it; the signal that ended it, 0 when it returned."""
    child = os.fork()
    if child == 0:
        try:
            action()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    assert os.WEXITSTATUS(status) == 0, "the child failed; its traceback is on standard error"
    return 0


def kill_before(call: int, targets: list[tuple[Any, str]]) -> None:
    """Make this process die by SIGKILL just before its ``call``-th call (from 0) of any of the target functions."""
    left, patch = [call], pytest.MonkeyPatch()

    def mortal(original: Callable[..., Any]) -> Callable[..., Any]:
        def die_or_call(*args: Any, **kwargs: Any) -> Any:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return original(*args, **kwargs)

        return die_or_call

    for owner, name in targets:
        patch.setattr(owner, name, mortal(getattr(owner, name)))
