"""The deployments of ``infra/prefect.yaml``, with parameters from the profiles that they name."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from agpo.profile import load_settings
from agpo.settings import NightlyRun, TrainRun
from flows.programs import WORK_POOL

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "infra/prefect.yaml"


def render_deployments(file: Path = FILE) -> dict[str, Any]:
    """The content of ``prefect.yaml`` as Prefect takes it: ``profile`` has become ``parameters``.

    Raises:
        SettingsError: a profile is wrong or missing.
    """
    content: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    for deployment in content["deployments"]:
        profile = deployment.pop("profile", None)
        if profile is not None:
            flow = deployment["entrypoint"].rpartition(":")[2]
            deployment["parameters"] = {"run": _read_profile(profile, flow)}
    return content


def deploy(home: Path, environment: Mapping[str, str]) -> list[str]:
    """Create or update all deployments and the work pool, in the Prefect that ``environment`` names; their names.

    Raises:
        RuntimeError: Prefect refused one; the message has what it said.
    """
    content = render_deployments()
    rendered = home / "prefect.yaml"
    rendered.write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False), encoding="utf-8")
    _create_pool()
    command = [sys.executable, "-P", "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(rendered)]
    finished = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment, "AGPO_CODE": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if finished.returncode:
        raise RuntimeError(f"deploying {rendered} failed:\n{finished.stdout}{finished.stderr}")
    return [f"{each['entrypoint'].rpartition(':')[2]}/{each['name']}" for each in content["deployments"]]


def _create_pool() -> None:
    """Create the work pool; one that is there keeps its settings."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(WORK_POOL)
        except ObjectNotFound:
            from prefect.workers.process import ProcessWorker

            template = ProcessWorker.get_default_base_job_template()
            client.create_work_pool(WorkPoolCreate(name=WORK_POOL, type="process", base_job_template=template))


def _read_profile(profile: str, flow: str) -> dict[str, Any]:
    """A profile describes a whole night; training alone takes its part of it."""
    night = load_settings(NightlyRun, profile, environ={})
    fields = set(TrainRun.model_fields) if flow == "train" else None
    return night.model_dump(mode="json", include=fields)
