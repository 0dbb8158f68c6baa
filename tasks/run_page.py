"""What the page of a Prefect flow run shows of it: the MLflow run, a summary table, pictures.

Outside a flow run every function does nothing, so stages need not ask where they run.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.runtime import flow_run

from tasks.tracking import RunRef

_PICTURE_BYTES = 500_000
_TRACKED = "Settings, figures, curves and models of this run"


def show_link(ref: RunRef, key: str = "mlflow-run") -> None:
    """Link to the MLflow run; plain text where no address is known. ``key`` holds a–z, 0–9 and -."""
    if flow_run.id is None:
        return
    if ref.url.startswith("http"):
        create_link_artifact(ref.url, link_text="MLflow run", key=key, description=_TRACKED)
    else:
        create_markdown_artifact(f"MLflow run `{ref.url}`", key=key, description=_TRACKED)


def show_table(rows: Sequence[Mapping[str, Any]], key: str, description: str) -> None:
    """Show rows as a table."""
    if flow_run.id is not None:
        create_table_artifact([dict(row) for row in rows], key=key, description=description)


def show_picture(file: Path, key: str, caption: str) -> None:
    """Show a PNG file. It is embedded, because a linked one would need an address that every browser reaches."""
    if flow_run.id is None:
        return
    picture = base64.b64encode(_shrink(file)).decode()
    create_markdown_artifact(
        f"{caption}\n\n![{caption}](data:image/png;base64,{picture})", key=key, description=caption
    )


def _shrink(file: Path) -> bytes:
    """The picture in at most 500 kB, at a lower resolution where it must be."""
    png = file.read_bytes()
    with Image.open(file) as image:
        scale = 1.0
        while len(png) > _PICTURE_BYTES:
            scale *= 0.8
            smaller = io.BytesIO()
            image.resize((int(image.width * scale), int(image.height * scale))).save(smaller, format="png")
            png = smaller.getvalue()
    return png
