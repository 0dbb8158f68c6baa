"""Ports of the local servers, which a home folder remembers so that links between their pages stay good."""

from __future__ import annotations

import json
import socket
from pathlib import Path

HOST = "127.0.0.1"


def known_ports(home: Path) -> dict[str, int]:
    file = home / "ports.json"
    known: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
    return known


def choose_ports(home: Path, prefect: int | None, mlflow: int | None) -> dict[str, int]:
    """The given ports, else the remembered ones, else free ones; remembered from now on."""
    known = known_ports(home)
    ports = {
        "prefect": prefect or _free_port(known.get("prefect", 0)),
        "mlflow": mlflow or _free_port(known.get("mlflow", 0)),
    }
    home.mkdir(parents=True, exist_ok=True)
    (home / "ports.json").write_text(json.dumps(ports))
    return ports


def is_free(port: int) -> bool:
    return _free_port(port) == port


def _free_port(preferred: int) -> int:
    """``preferred`` if it is free, else any; 0 prefers none."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, preferred))
        except OSError:
            probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
