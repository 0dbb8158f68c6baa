"""What every test shares: a plain environment, and no test that is skipped unnoticed."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

ALLOWED_SKIPS = Path(__file__).with_name("allowed_skips")

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: two workers share two cores
os.environ |= {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
for _name in [name for name in os.environ if name.startswith("AGPO_")]:
    del os.environ[_name]
for _name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):  # servers of the user's own
    os.environ.pop(_name, None)

# A slow machine is no failure, and the same examples are tried every time.
hypothesis.settings.register_profile("agpo", deadline=None, derandomize=True)
hypothesis.settings.load_profile("agpo")


class SkipGuard:
    """Lists the skipped tests with their reasons, and fails the run for one that is not in ``allowed_skips``."""

    def __init__(self, allowed: list[str]) -> None:
        self.allowed = allowed
        self.skipped: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        self.skipped[report.nodeid] = reason.removeprefix("Skipped: ")

    def _unlisted(self) -> list[str]:
        return [test for test in self.skipped if not any(part in test for part in self.allowed)]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._unlisted() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.skipped:
            return
        terminalreporter.section("skipped tests")
        unlisted = self._unlisted()
        for test, reason in sorted(self.skipped.items()):
            mark = "NOT LISTED in tests/allowed_skips: " if test in unlisted else ""
            terminalreporter.write_line(f"{mark}{test}: {reason}")


def pytest_configure(config: pytest.Config) -> None:
    lines = ALLOWED_SKIPS.read_text(encoding="utf-8").splitlines()
    allowed = [line.split("  ")[0] for line in lines if line.strip() and not line.startswith("#")]
    if not hasattr(config, "workerinput"):  # a worker of pytest-xdist reports to the process that started it
        config.pluginmanager.register(SkipGuard(allowed))
