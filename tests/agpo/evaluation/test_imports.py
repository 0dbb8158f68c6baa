"""The evaluation room is light: it loads neither torch nor matplotlib."""

from __future__ import annotations

import subprocess
import sys


def test_importing_evaluation_loads_neither_torch_nor_matplotlib() -> None:
    script = (
        "import sys, agpo.evaluation, agpo.evaluation.command\n"
        "print(sorted({'torch', 'matplotlib', 'transformers'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
