"""Finds the kinds that a setting may choose from: the modules of a folder, and entry points of other packages."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from functools import reduce
from importlib.metadata import EntryPoint, entry_points
from operator import or_
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field

KindT = TypeVar("KindT", bound=BaseModel)


def find_kinds(package: str, base: type[KindT]) -> dict[str, type[KindT]]:
    """Subclasses of ``base`` by the default of their field ``kind``, in alphabetical order.

    Looks into the modules of ``package`` and behind the entry points of the group of the same name. Raises TypeError
    or ImportError for an entry point that is none, and ValueError for a kind that is there twice.
    """
    found: dict[str, type[KindT]] = {}
    for origin, kind_class in (*_in_modules(package, base), *_behind_entry_points(package, base)):
        kind = kind_class.model_fields["kind"].default
        if not isinstance(kind, str):
            raise TypeError(f'{origin}: {kind_class.__name__} needs a field kind: Literal["name"] = "name"')
        if kind in found:
            raise ValueError(f"{origin}: the kind {kind!r} is taken by {found[kind].__module__}")
        found[kind] = kind_class
    return dict(sorted(found.items()))


def tagged_union(kinds: dict[str, type[KindT]]) -> Any:
    """The annotation of a field that holds one of the kinds, chosen by its ``kind``."""
    return Annotated[reduce(or_, kinds.values()), Field(discriminator="kind")]


def _in_modules(package: str, base: type[KindT]) -> Iterator[tuple[str, type[KindT]]]:
    for info in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if info.ispkg or info.name.startswith("_"):
            continue
        module = importlib.import_module(f"{package}.{info.name}")
        for value in vars(module).values():
            own = isinstance(value, type) and value.__module__ == module.__name__
            if own and value is not base and issubclass(value, base):
                yield module.__name__, value


def _behind_entry_points(group: str, base: type[KindT]) -> Iterator[tuple[str, type[KindT]]]:
    for entry in entry_points(group=group):
        origin = f"entry point {entry.name} = {entry.value} ({group})"
        yield origin, _load(entry, origin, base)


def _load(entry: EntryPoint, origin: str, base: type[KindT]) -> type[KindT]:
    try:
        value = entry.load()
    except Exception as error:
        raise ImportError(f"{origin} cannot be loaded: {type(error).__name__}: {error}") from error
    if not (isinstance(value, type) and issubclass(value, base)):
        raise TypeError(f"{origin}: accepted: a subclass of {base.__module__}.{base.__name__}")
    return value
