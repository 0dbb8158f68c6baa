"""What one stage hands the next: a small reference to a versioned artifact, never the data itself."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict


class ArtifactRef(BaseModel):
    """Where an artifact lies and what it is.

    ``key`` says how it was made (a digest of stage, version, settings and inputs); ``sha256`` says what its bytes are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str
    key: str
    sha256: str
    kind: str
    rows: int
    bytes: int


def digest(content: Any) -> str:
    """SHA-256 of a JSON-able value, independent of dictionary order and of the process."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
