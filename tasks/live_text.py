"""A text on the page of a Prefect flow run that is replaced while the run goes on."""

from __future__ import annotations

from typing import cast
from uuid import UUID

from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.runtime import flow_run


class LiveText:
    """One artifact of a flow run, however often it is shown; outside a flow run nothing is.

    ``key`` holds a–z, 0–9 and -.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self._artifact: UUID | None = None

    def show(self, text: str, description: str) -> None:
        """Put this text and description, both Markdown, in the place of the earlier ones."""
        if flow_run.id is None:
            return
        if self._artifact is None:
            made = create_markdown_artifact(text, key=self.key, description=description)
            self._artifact = cast(UUID, made)  # its type allows for callers that await it
            return
        with get_client(sync_client=True) as client:
            client.update_artifact(self._artifact, ArtifactUpdate(data=text, description=description))
