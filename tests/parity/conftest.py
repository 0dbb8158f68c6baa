from __future__ import annotations

from tests.cpu_time import one_thread

__all__ = ["one_thread"]
