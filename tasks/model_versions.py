"""The versions of a registered model and what its aliases say of them: what policies and students have in common.

A version is made from an artifact of the store, once, and carries its reference and evidence as tags. The aliases:
``champion`` (what is used), ``previous`` (the champion before it) and ``challenger`` (under evaluation).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from mlflow.entities import LoggedModel
from mlflow.entities.model_registry import ModelVersion, RegisteredModel

from agpo.artifacts import ArtifactRef
from tasks.tracking import RunRef, connect

Outcome = Literal["promote", "reject", "inconclusive"]


class ModelVersions:
    """One registered model. Each call may be repeated after a kill or by a later attempt, and leaves the same state."""

    def __init__(self, tracking_uri: str, name: str, description: str) -> None:
        self.client = connect(tracking_uri)
        self.name = name
        self.description = description

    def version(self, alias: str) -> int | None:
        """The version that an alias points to."""
        model = self._model()
        return int(model.aliases[alias]) if model is not None and alias in model.aliases else None

    def artifact(self, alias: str) -> ArtifactRef | None:
        """The artifact of the version that an alias points to; ValueError for one that was made by hand."""
        found = self._pointed(alias)
        return None if found is None else self._read_reference(found, alias)

    def act_on(self, outcome: Outcome, version: int, decision: str) -> None:
        """Let the gate's decision on a version take effect, once per ``decision`` (the key of its evidence).

        A run that is repeated makes the same decision again; by then the aliases may have moved on, so they stay.
        """
        tags = self.client.get_model_version(self.name, str(version)).tags
        if tags.get("gate.decision") == decision:
            return
        if outcome == "promote":
            self.promote(version)
        elif outcome == "inconclusive":
            self.mark_challenger(version)
        else:
            self._withdraw_challenger(version)
        self.client.set_model_version_tag(self.name, str(version), "gate.outcome", outcome)
        self.client.set_model_version_tag(self.name, str(version), "gate.decision", decision)

    def promote(self, version: int) -> None:
        """Make a version the champion and remember the old one as ``previous``. The champion itself stays as it is."""
        champion = self.version("champion")
        if champion == version:
            return
        if champion is not None:
            self._point("previous", champion)
        self._withdraw_challenger(version)
        self._point("champion", version)

    def mark_challenger(self, version: int) -> None:
        """Point ``challenger`` to a version, unless it is the champion already."""
        if version != self.version("champion"):
            self._point("challenger", version)

    def _withdraw_challenger(self, version: int) -> None:
        if self.version("challenger") == version:
            self.client.delete_registered_model_alias(self.name, "challenger")

    def _point(self, alias: str, version: int) -> None:
        self.client.set_registered_model_alias(self.name, alias, str(version))

    def _pointed(self, alias: str) -> ModelVersion | None:
        version = self.version(alias)
        return None if version is None else self.client.get_model_version(self.name, str(version))

    def _read_reference(self, found: ModelVersion, alias: str) -> ArtifactRef:
        if "checkpoint.key" not in found.tags:
            raise ValueError(
                f"{self.name} version {found.version} ({alias}) has no tag checkpoint.key: no artifact is known"
            )
        return ArtifactRef.model_validate({name: found.tags[f"checkpoint.{name}"] for name in ArtifactRef.model_fields})

    def _model(self) -> RegisteredModel | None:
        return next(iter(self.client.search_registered_models(f"name = '{self.name}'", max_results=1)), None)

    def _versions(self) -> list[ModelVersion]:
        return list(self.client.search_model_versions(f"name = '{self.name}'", max_results=1000))

    def _find(self, key: str) -> ModelVersion | None:
        return next((version for version in self._versions() if version.tags.get("checkpoint.key") == key), None)

    def _create_version(
        self, artifact: ArtifactRef, model: LoggedModel, run: RunRef, tags: Mapping[str, str], card: str
    ) -> int:
        if self._model() is None:
            self.client.create_registered_model(self.name, description=self.description)
        version = self.client.create_model_version(
            self.name,
            source=model.artifact_location,  # models:/<id> would be looked up through the process-wide tracking URI
            run_id=run.run_id,
            model_id=model.model_id,
            tags={**reference_tags(artifact), **tags},
            description=card,
            await_creation_for=0,  # it is ready at once: the model's files, if it has any, are there
        )
        # The link from the run's page to the version, which only a server sets by itself.
        versions = json.dumps([{"name": self.name, "version": int(version.version)}])
        self.client.set_logged_model_tags(model.model_id, {"mlflow.modelVersions": versions})
        return int(version.version)

    def _annotate(self, version: ModelVersion, tags: Mapping[str, str], card: str) -> None:
        for name, value in tags.items():
            self.client.set_model_version_tag(self.name, version.version, name, value)
        if card:
            self.client.update_model_version(self.name, version.version, card)


def reference_tags(artifact: ArtifactRef) -> dict[str, str]:
    return {f"checkpoint.{name}": str(value) for name, value in artifact.model_dump().items()}


def evidence_tags(evidence: Mapping[str, Any], prefix: str = "evidence.") -> dict[str, str]:
    """Nested figures as tags ``evidence.<path>``."""
    tags: dict[str, str] = {}
    for name, value in evidence.items():
        if isinstance(value, Mapping):
            tags |= evidence_tags(value, f"{prefix}{name}.")
        else:
            tags[prefix + name] = value if isinstance(value, str) else json.dumps(value)
    return tags
