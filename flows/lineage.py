"""Where an artifact or a single label comes from, and which labels a teacher has given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import polars as pl
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from agpo.artifacts import ArtifactRef, Store
from agpo.stages import LABEL
from flows.console import open_console
from tasks.location import open_store, tracking_uri
from tasks.tracking import connect

_LABEL = "label-"
_SHOWN = 3  # different answers of a pair
_CHAIN = 12  # levels of inputs


def show_lineage(name: str) -> None:
    """Print the chain behind a label (its id) or an artifact (its key, or the beginning of it).

    Raises ValueError where nothing or more than one thing is called so.
    """
    store, client = open_store(), connect(tracking_uri())
    if name.startswith(_LABEL):
        ref, row = find_label(store, name)
        tree = _describe_label(store, ref, row)
        tree.add(trace(store, client, ref))
    else:
        tree = trace(store, client, find_artifact(store, name))
    open_console().print(tree)


def show_labels(teacher: str, family: str) -> None:
    """Print the label artifacts of a teacher: a version or alias of the family's registered model.

    Raises ValueError where there is no such version.
    """
    client, store = connect(tracking_uri()), open_store()
    key = find_teacher_key(client, teacher, family)
    table = Table("Labels", "Split", "Pairs", "Agreement", "Right", "Folder", box=None, pad_edge=False)
    for ref in find_labels_of(store, key):
        manifest = store.manifest(ref)
        metrics = manifest.summary["metrics"]
        right = metrics.get("label/accuracy")
        table.add_row(
            ref.key[:12],
            manifest.settings["split"],
            f"{ref.rows:,}",
            f"{metrics['label/agreement']:.3f}",
            "" if right is None else f"{100 * right:.1f} %",
            ref.uri,
        )
    found = table if table.row_count else f"agpo-policy-{family} {teacher} has labelled nothing."
    open_console().print(found)


def find_label(store: Store, name: str) -> tuple[ArtifactRef, dict[str, object]]:
    """The artifact that holds a label, and its row (`records.Labels`)."""
    for ref in _artifacts(store, LABEL.kind):
        files = sorted(store.fetch(ref).glob("labels-*.parquet"))
        found = pl.scan_parquet(files, glob=False).filter(pl.col("id") == name).collect()
        if found.height:
            return ref, found.row(0, named=True)
    raise ValueError(f"no label {name} is in {store.files.uri}; accepted: an id from the column id of a labels table")


def find_artifact(store: Store, beginning: str) -> ArtifactRef:
    """The only artifact whose key begins so."""
    kinds = [kind for kind in store.files.folders() if kind not in ("journal", "partial")]
    found = [ref for kind in kinds for ref in _artifacts(store, kind) if ref.key.startswith(beginning)]
    if len({(ref.kind, ref.key) for ref in found}) != 1:
        names = ", ".join(f"{ref.kind}/{ref.key[:12]}" for ref in found) or "none"
        raise ValueError(f"one artifact's key must begin with {beginning!r}; in {store.files.uri} these do: {names}")
    return found[0]


def find_labels_of(store: Store, teacher: str) -> Iterator[ArtifactRef]:
    """The labels that the policy with this key has given."""
    for ref in _artifacts(store, LABEL.kind):
        policy = store.manifest(ref).inputs.get("policy")
        if policy is not None and policy.key == teacher:
            yield ref


def find_teacher_key(client: MlflowClient, version: str, family: str) -> str:
    model = f"agpo-policy-{family}"
    try:
        found = (
            client.get_model_version(model, version)
            if version.isdecimal()
            else client.get_model_version_by_alias(model, version)
        )
    except MlflowException as error:
        raise ValueError(f"{model} has no version or alias {version!r}: {error.message}") from None
    return str(found.tags["checkpoint.key"])


def trace(store: Store, client: MlflowClient, ref: ArtifactRef, name: str = "", depth: int = 0) -> Tree:
    """An artifact with who made it and, below it, what it was made from."""
    manifest = store.manifest(ref)
    title = Text.assemble(
        (f"{name}: " if name else "", "dim"), (f"{ref.kind}/{ref.key[:12]}", "bold"), f"  {manifest.stage}"
    )
    title.append(f" v{manifest.version}, {manifest.created}", "dim")
    for version in _versions(client, ref.key):
        title.append(f"  {version}", "green")
    run = manifest.producer.get("mlflow_run")
    if run:
        title.append(f"  MLflow run {run[:12]}", "dim")
    tree = Tree(title)
    for part, used in manifest.inputs.items() if depth < _CHAIN else ():
        tree.add(trace(store, client, used, part, depth + 1))
    return tree


def _describe_label(store: Store, ref: ArtifactRef, row: dict[str, object]) -> Tree:
    scheme, letter = row["scheme"], row["label"] or "none"
    tree = Tree(Text.assemble((str(row["id"]), "bold"), f"  {scheme} {letter}, agreement {row['agreement']:.2f}"))
    tree.add(Text(f"query: {row['query']}"))
    tree.add(Text(f"ad: {row['title']}"))
    if not row["rollouts"]:  # a label by gold
        return tree
    answers = pl.read_parquet(store.fetch(ref) / str(row["rollouts"])).filter(pl.col("problem_id") == row["pair_id"])
    votes = Counter(vote or "none" for vote in answers["vote"])
    counted = ", ".join(f"{vote} × {count}" for vote, count in votes.most_common(_SHOWN))
    tree.add(Text(f"answers: {counted}, in {row['rollouts']}, prompt {str(row['prompt'])[:12]}"))
    return tree


def _versions(client: MlflowClient, key: str) -> list[str]:
    """The registered versions that point to an artifact, with their aliases."""
    found = []
    for model in client.search_registered_models():
        for version in client.search_model_versions(f"name = '{model.name}'"):
            if version.tags.get("checkpoint.key") == key:
                aliases = [alias for alias, number in model.aliases.items() if str(number) == str(version.version)]
                found.append(f"{model.name} version {version.version}" + "".join(f" @{alias}" for alias in aliases))
    return found


def _artifacts(store: Store, kind: str) -> Iterator[ArtifactRef]:
    for key in store.files.folders(kind):
        ref = store.find(kind, key)
        if ref is not None:
            yield ref
