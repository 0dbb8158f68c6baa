"""No vLLM process outlives the run that started it. In a file of its own: no other engine runs beside it."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.services_vllm.policies import MODELS, write_policy
from tests.services_vllm.processes import members_of

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]


def test_nothing_is_left_when_the_run_is_killed(tmp_path: Path) -> None:
    folder = write_policy(tmp_path / "policy", MODELS["llama"], seed=0)
    program = """
        import pathlib, sys, time
        from agpo.rollout import VllmEngine
        from agpo.settings.vllm import VllmSettings
        folder = pathlib.Path(sys.argv[1])
        engine = VllmEngine(folder, {2}, VllmSettings(cache=64), folder.parent / "other.log")
        print(engine._service.process_group, flush=True)
        time.sleep(600)
    """
    arguments = [sys.executable, "-c", textwrap.dedent(program), str(folder)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        group = int(run.stdout.readline())
        assert len(members_of(group)) >= 3
        run.send_signal(signal.SIGKILL)
        end = time.monotonic() + 10
        while members_of(group) and time.monotonic() < end:
            time.sleep(0.1)
        assert not members_of(group)
