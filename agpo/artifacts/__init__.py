"""Versioned artifacts: reference, key, manifest and store."""

from agpo.artifacts.files import Files
from agpo.artifacts.reference import ArtifactRef, digest
from agpo.artifacts.store import DamagedArtifact, Manifest, Store

__all__ = ["ArtifactRef", "DamagedArtifact", "Files", "Manifest", "Store", "digest"]
