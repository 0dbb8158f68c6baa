"""The model registry: one registered model per problem family, whose versions point into the artifact store.

A version is a pointer with evidence; the aliases say what each is: ``base`` (where training starts and what the
boundary is measured against), ``champion`` (what labelling, distillation and serving use), ``previous`` (the champion
before it) and ``challenger`` (under evaluation). MLflow never holds weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from mlflow.entities import LoggedModelStatus
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from pydantic import BaseModel, ConfigDict

from agpo.artifacts import ArtifactRef
from tasks.tracking import RunRef, connect

Role = Literal["base", "candidate"]
Outcome = Literal["promote", "reject", "inconclusive"]


class Registered(BaseModel):
    """A version of a registered model and the policy that it points to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int
    role: Role
    policy: ArtifactRef


class Registry:
    """The registered model ``agpo-policy-<family>``. Everything is per family: no alias reaches into another one.

    Each call may be repeated after a kill or by a later attempt of the same run, and leaves the same state.
    """

    def __init__(self, tracking_uri: str, family: str) -> None:
        self.client = connect(tracking_uri)
        self.family = family
        self.name = f"agpo-policy-{family}"

    def register(
        self, policy: ArtifactRef, run: RunRef, role: Role, evidence: Mapping[str, Any] | None = None, card: str = ""
    ) -> int:
        """The version that points to this policy, made if the family has none with the policy's key.

        ``evidence`` becomes tags ``evidence.<path>``, ``card`` (Markdown) the version's description; both replace those
        of an earlier registration. A candidate may become a base; a base stays one, with its card.
        """
        found = self._find(policy.key)
        if found is None:
            return self._create(policy, run, role, evidence or {}, card)
        if role == "base" or found.tags["agpo.role"] != "base":
            for name, value in {"agpo.role": role, **_evidence_tags(evidence or {})}.items():
                self.client.set_model_version_tag(self.name, found.version, name, value)
            if card:
                self.client.update_model_version(self.name, found.version, card)
        return int(found.version)

    def ensure_base(self, policy: ArtifactRef, run: RunRef, card: str = "") -> int:
        """Register a base; it takes the alias ``base``, and is the champion of a family that has none."""
        version = self.register(policy, run, "base", card=card)
        newest = max(int(other.version) for other in self._versions() if other.tags.get("agpo.role") == "base")
        if newest != self.version("base"):
            self._point("base", newest)
        if self.version("champion") is None:
            self._point("champion", version)
        return version

    def champion(self) -> Registered | None:
        return self.lookup("champion")

    def base(self) -> Registered | None:
        return self.lookup("base")

    def lookup(self, alias: str) -> Registered | None:
        version = self.version(alias)
        if version is None:
            return None
        tags = self.client.get_model_version(self.name, str(version)).tags
        if "checkpoint.key" not in tags:  # made by hand
            raise ValueError(f"{self.name} version {version} ({alias}) has no tag checkpoint.key: no policy is known")
        policy = {name: tags[f"checkpoint.{name}"] for name in ArtifactRef.model_fields}
        return Registered.model_validate({"version": version, "role": tags["agpo.role"], "policy": policy})

    def version(self, alias: str) -> int | None:
        """The version that an alias points to."""
        model = self._model()
        return int(model.aliases[alias]) if model is not None and alias in model.aliases else None

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

    def _model(self) -> RegisteredModel | None:
        return next(iter(self.client.search_registered_models(f"name = '{self.name}'", max_results=1)), None)

    def _versions(self) -> list[ModelVersion]:
        return list(self.client.search_model_versions(f"name = '{self.name}'", max_results=1000))

    def _find(self, key: str) -> ModelVersion | None:
        return next((version for version in self._versions() if version.tags.get("checkpoint.key") == key), None)

    def _create(self, policy: ArtifactRef, run: RunRef, role: Role, evidence: Mapping[str, Any], card: str) -> int:
        if self._model() is None:
            self.client.create_registered_model(
                self.name, description=f"Policies trained with verifiable rewards on the problems `{self.family}`."
            )
        reference = {f"checkpoint.{name}": str(value) for name, value in policy.model_dump().items()}
        model = self.client.create_logged_model(
            experiment_id=run.experiment_id,
            name=f"{self.name}-{policy.key[:12]}",
            source_run_id=run.run_id,
            tags={"mlflow.model.isExternal": "true"},  # there are no files: the store has them
            params=reference,
            model_type="policy",
        )
        self.client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        version = self.client.create_model_version(
            self.name,
            source=model.artifact_location,  # models:/<id> would be looked up through the process-wide tracking URI
            run_id=run.run_id,
            model_id=model.model_id,
            tags={"agpo.role": role, **reference, **_evidence_tags(evidence)},
            description=card,
            await_creation_for=0,  # it is ready at once, there being nothing to upload
        )
        # The link from the run's page to the version, which only a server sets by itself.
        versions = json.dumps([{"name": self.name, "version": int(version.version)}])
        self.client.set_logged_model_tags(model.model_id, {"mlflow.modelVersions": versions})
        return int(version.version)


def _evidence_tags(evidence: Mapping[str, Any], prefix: str = "evidence.") -> dict[str, str]:
    tags: dict[str, str] = {}
    for name, value in evidence.items():
        if isinstance(value, Mapping):
            tags |= _evidence_tags(value, f"{prefix}{name}.")
        else:
            tags[prefix + name] = value if isinstance(value, str) else json.dumps(value)
    return tags
