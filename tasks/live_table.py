"""A table on the page of a Prefect flow run that is replaced while the run goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast
from uuid import UUID

from prefect.artifacts import create_table_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.runtime import flow_run


class LiveTable:
    """One artifact of a flow run, however often it is shown; outside a flow run nothing is.

    ``key`` holds a–z, 0–9 and -.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self._artifact: UUID | None = None

    def show(self, rows: Sequence[Mapping[str, Any]], description: str) -> None:
        """Put these rows and this text in the place of the earlier ones."""
        if flow_run.id is None:
            return
        table = [dict(row) for row in rows]
        if self._artifact is None:
            made = create_table_artifact(table, key=self.key, description=description)
            self._artifact = cast(UUID, made)  # its type allows for callers that await it
            return
        with get_client(sync_client=True) as client:
            client.update_artifact(self._artifact, ArtifactUpdate(data=json.dumps(table), description=description))
