"""Run a module as a child that ends with its parent, even if that was killed.

Called as ``child_process.py PARENT_PID MODULE ARGUMENT…``, with the meaning of ``python -m MODULE ARGUMENT…``.
The parent's id is polled, which works on every POSIX system; it changes when the parent dies and the child is adopted.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

_EVERY = 0.5  # seconds
_GRACE = 5.0  # seconds for an orderly end


def main() -> None:
    parent, module, *arguments = sys.argv[1:]
    # A shell starts background jobs with the interrupt signal ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_follow, args=(int(parent),), daemon=True).start()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_EVERY)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE)
    os._exit(1)


if __name__ == "__main__":
    main()
