"""The registry of policies: one registered model per problem family, whose versions point into the artifact store.

A version is a pointer with evidence; MLflow never holds weights. Beside the aliases that every registered model has,
there is ``base`` (where training starts and what the boundary is measured against); the champion is what labelling and
distillation use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from mlflow.entities import LoggedModelStatus
from pydantic import BaseModel, ConfigDict

from agpo.artifacts import ArtifactRef
from tasks.model_versions import ModelVersions, evidence_tags, reference_tags
from tasks.tracking import RunRef

Role = Literal["base", "candidate"]


class Registered(BaseModel):
    """A version of a registered model and the policy that it points to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int
    role: Role
    policy: ArtifactRef


class Registry(ModelVersions):
    """The registered model ``agpo-policy-<family>``. Everything is per family: no alias reaches into another one."""

    def __init__(self, tracking_uri: str, family: str) -> None:
        super().__init__(
            tracking_uri,
            name=f"agpo-policy-{family}",
            description=f"Policies trained with verifiable rewards on the problems `{family}`.",
        )
        self.family = family

    def register(
        self, policy: ArtifactRef, run: RunRef, role: Role, evidence: Mapping[str, Any] | None = None, card: str = ""
    ) -> int:
        """The version that points to this policy, made if the family has none with the policy's key.

        ``evidence`` becomes tags ``evidence.<path>``, ``card`` (Markdown) the version's description; both replace those
        of an earlier registration. A candidate may become a base; a base stays one, with its card.
        """
        found = self._find(policy.key)
        tags = {"agpo.role": role, **evidence_tags(evidence or {})}
        if found is None:
            return self._create(policy, run, tags, card)
        if role == "base" or found.tags["agpo.role"] != "base":
            self._annotate(found, tags, card)
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

    def lookup(self, alias: str) -> Registered | None:
        found = self._pointed(alias)
        if found is None:
            return None
        policy = self._read_reference(found, alias)
        return Registered.model_validate({"version": found.version, "role": found.tags["agpo.role"], "policy": policy})

    def _create(self, policy: ArtifactRef, run: RunRef, tags: Mapping[str, str], card: str) -> int:
        model = self.client.create_logged_model(
            experiment_id=run.experiment_id,
            name=f"{self.name}-{policy.key[:12]}",
            source_run_id=run.run_id,
            tags={"mlflow.model.isExternal": "true"},  # there are no files: the store has them
            params=reference_tags(policy),
            model_type="policy",
        )
        self.client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        return self._create_version(policy, model, run, tags, card)
