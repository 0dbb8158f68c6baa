"""Prefect, MLflow and a worker on this machine, until they are told to end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from flows import programs, services
from flows.deployments import deploy
from flows.ports import HOST, choose_ports, is_free
from flows.programs import WORK_POOL, answers, api_url, worker_environment
from flows.servers import prefect_settings
from flows.services import Services
from tasks.location import TRACKING_VARIABLE, home, store_address, tracking_uri

_SERVER_GRACE = 10.0  # seconds
_WORKER_GRACE = 60.0  # seconds, in which the flows that run write a checkpoint
PREFECT, MLFLOW, WORKER = "Prefect server", "MLflow server", "worker"


class Status(NamedTuple):
    service: str
    state: str
    address: str
    good: bool


def up(prefect_port: int | None = None, mlflow_port: int | None = None) -> Services:
    """Start what does not run yet, and deploy all flows. Servers that the environment names are used, not started.

    Raises:
        RuntimeError: a service does not start; nothing that this call started is left.
        ValueError: a given port is taken.
    """
    folder = home()
    with services.lock(folder):
        known = services.read_services(folder)
        if known is not None:
            if known.all_run() and _as_wanted(known, prefect_port, mlflow_port):
                _deploy(folder, known)
                return known
            services.end(folder, known)
        with _all_or_nothing(folder):
            return _start(folder, prefect_port, mlflow_port)


def down() -> list[str]:
    """End what `up` has started, and say what that was."""
    folder = home()
    with services.lock(folder):
        known = services.read_services(folder)
        if known is None:
            return []
        services.end(folder, known)
        return list(known.started)


def status() -> list[Status]:
    """The state of each service that `up` has started."""
    known = services.read_services(home())
    if known is None:
        return []
    addresses = {PREFECT: known.prefect.removesuffix("/api"), MLFLOW: known.mlflow, WORKER: ""}
    healthy: dict[str, Callable[[], bool]] = {
        PREFECT: lambda: answers(known.prefect),
        MLFLOW: lambda: answers(known.mlflow),
        WORKER: lambda: True,
    }
    found = []
    for name, service in known.started.items():
        runs = service.runs()
        good = runs and healthy[name]()
        state = "runs" if good else "does not answer" if runs else "has ended"
        found.append(Status(name, f"{state}, process {service.pid}", addresses[name], good))
    return found


def print_addresses(running: Services) -> None:
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"Prefect  {running.prefect.removesuffix('/api')}", markup=False)
    console.print(f"MLflow   {running.mlflow}", markup=False)


def _start(folder: Path, prefect_port: int | None, mlflow_port: int | None) -> Services:
    for port in (prefect_port, mlflow_port):
        if port is not None and not is_free(port):
            raise ValueError(f"port {port} of {HOST} is taken: name another one, or none for a free one")
    ports = choose_ports(folder, prefect_port, mlflow_port)
    (folder / "prefect").mkdir(exist_ok=True)
    own_prefect, own_mlflow = os.environ.get("PREFECT_API_URL"), tracking_uri(folder)
    found = Services(
        prefect=own_prefect or api_url(ports["prefect"]),
        mlflow=own_mlflow if own_mlflow.startswith("http") else f"http://{HOST}:{ports['mlflow']}",
        store=store_address(),
    )
    if found.prefect != own_prefect:
        server = programs.prefect_server(folder, ports["prefect"])
        found = services.start(folder, found, PREFECT, server, _SERVER_GRACE)
    if found.mlflow != own_mlflow:
        server = programs.mlflow_server(folder, ports["mlflow"])
        found = services.start(folder, found, MLFLOW, server, _SERVER_GRACE)
    for name, address in ((PREFECT, found.prefect), (MLFLOW, found.mlflow)):
        if name in found.started:
            services.wait(found, name, partial(answers, address))
        elif not answers(address):
            raise RuntimeError(f"{address} does not answer: start that server, or unset the variable that names it")
    _deploy(folder, found)
    if PREFECT in found.started:
        _close_runs(folder, found)
    since = datetime.now(UTC)
    found = services.start(folder, found, WORKER, programs.worker(_environment(folder, found)), _WORKER_GRACE)
    with prefect_settings(folder, found.prefect):
        services.wait(found, WORKER, lambda: _asks_for_runs(since))
    return found


def _deploy(folder: Path, running: Services) -> None:
    with prefect_settings(folder, running.prefect):
        deploy(folder, _environment(folder, running))


def _close_runs(folder: Path, running: Services) -> None:
    """Say of runs that were cut off, as by a power cut, that they crashed, and of nights that are past that they were
    missed: the worker that starts would otherwise wait for the former, and make up for all the latter at once."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
        WorkPoolFilter,
        WorkPoolFilterName,
    )
    from prefect.client.schemas.objects import State, StateType
    from prefect.states import Cancelled, Crashed

    open_types = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
    not_ended = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=open_types)))
    of_the_pool = WorkPoolFilter(name=WorkPoolFilterName(any_=[WORK_POOL]))
    now = datetime.now(UTC)
    with prefect_settings(folder, running.prefect), get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=not_ended, work_pool_filter=of_the_pool):
            if run.state_type != StateType.SCHEDULED:
                client.set_flow_run_state(run.id, Crashed(message="The run was cut off."), force=True)
            elif run.auto_scheduled and run.expected_start_time is not None and run.expected_start_time < now:
                missed: State[None] = Cancelled(name="Missed", message="No worker ran at its time.")
                client.set_flow_run_state(run.id, missed, force=True)


def _environment(folder: Path, running: Services) -> dict[str, str]:
    return worker_environment(folder, running.store, running.prefect, running.mlflow)


def _asks_for_runs(since: datetime) -> bool:
    """Whether the worker has reported since it was started."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        workers = client.read_workers_for_work_pool(WORK_POOL)
    return any(worker.last_heartbeat_time is not None and worker.last_heartbeat_time > since for worker in workers)


def _as_wanted(running: Services, prefect_port: int | None, mlflow_port: int | None) -> bool:
    """Whether what runs has the store, the servers and the ports that are asked for now."""
    wanted = {
        "PREFECT_API_URL": (os.environ.get("PREFECT_API_URL"), running.prefect),
        TRACKING_VARIABLE: (_server_of(os.environ.get(TRACKING_VARIABLE)), running.mlflow),
        "prefect_port": (prefect_port and api_url(prefect_port), running.prefect),
        "mlflow_port": (mlflow_port and f"http://{HOST}:{mlflow_port}", running.mlflow),
        "store": (store_address(), running.store),
    }
    return all(asked in (None, found) for asked, found in wanted.values())


def _server_of(tracking: str | None) -> str | None:
    """A database is no server: one in front of it is as wanted as any."""
    return tracking if tracking is not None and tracking.startswith("http") else None


@contextmanager
def _all_or_nothing(folder: Path) -> Iterator[None]:
    """End what was started before an error."""
    try:
        yield
    except BaseException:
        started = services.read_services(folder)
        if started is not None:
            services.end(folder, started)
        raise
