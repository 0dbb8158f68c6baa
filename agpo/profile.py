"""Settings of a run from a profile, the environment and ``--set``; every wrong one is named in a single error."""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from agpo.settings import Settings

PROFILES = Path(__file__).resolve().parents[1] / "infra/profiles"
PREFIX = "AGPO__"

Place = tuple[str | int, ...]  # where a value stands, from the root: names of fields, numbers of list items
SettingsT = TypeVar("SettingsT", bound=Settings)


class SettingsError(ValueError):
    """All that is wrong with the given settings: ``problems`` has a line for each."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class _Typed(str):
    """A value as it was typed: the field that it is for decides how it is read."""


@dataclass(frozen=True)
class _Assignment:
    origin: str
    place: tuple[str, ...]
    value: _Typed


def load_settings(
    cls: type[SettingsT],
    profile: str | None = None,
    sets: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
) -> SettingsT:
    """Defaults of ``cls``, then the profile, ``AGPO__A__B=value`` of the environment, ``a.b=value`` of ``sets``.

    ``profile`` is a name in ``infra/profiles`` or the path of a ``.toml`` file. Later layers win; tables are merged
    field by field, lists are replaced whole. A layer that picks another kind of objective, base or problem source
    starts from the defaults of that kind. A typed value is read as JSON, else as text. Raises SettingsError.
    """
    problems: list[str] = []
    table = {} if profile is None else _read_profile(profile, problems)
    variables = [
        _Assignment(name, tuple(name.removeprefix(PREFIX).lower().split("__")), _Typed(value))
        for name, value in sorted(environ.items())
        if name.startswith(PREFIX)
    ]
    typed = _read_sets(sets, problems)
    values = _defaults(cls)
    for layer in (table, _nest(variables, problems), _nest(typed, problems)):
        values = _merge(cls, values, layer)
    try:
        settings = cls.model_validate(values)
    except ValidationError as error:
        origins = _Origins(f"profile {profile}", table, [*variables, *typed])
        raise SettingsError([*problems, *(_explain(cls, detail, origins) for detail in error.errors())]) from None
    if problems:
        raise SettingsError(problems)
    return settings


def _read_profile(profile: str, problems: list[str]) -> dict[str, Any]:
    path = Path(profile) if profile.endswith(".toml") else PROFILES / f"{profile}.toml"
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        names = sorted(known.stem for known in PROFILES.glob("*.toml"))
        problems.append(f"profile {profile!r}: not found; accepted: a .toml file, {_choices(profile, names)}")
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        problems.append(f"profile {profile!r}: cannot be read as TOML: {error}")
    return {}


def _read_sets(sets: Sequence[str], problems: list[str]) -> list[_Assignment]:
    assignments = []
    for text in sets:
        key, equals, value = text.partition("=")
        if equals and key.strip():
            assignments.append(_Assignment("--set", tuple(key.strip().split(".")), _Typed(value.strip())))
        else:
            problems.append(f"--set {text}: accepted: key=value, e.g. learner.rate=1e-4")
    return assignments


def _defaults(cls: type[Settings]) -> dict[str, Any]:
    fields = {name: field.get_default() for name, field in cls.model_fields.items() if not field.is_required()}
    return {name: value.model_dump() if isinstance(value, BaseModel) else value for name, value in fields.items()}


def _nest(assignments: Iterable[_Assignment], problems: list[str]) -> dict[str, Any]:
    """One table of a layer's assignments; of two for the same place the last one wins."""
    table: dict[str, Any] = {}
    for assignment in assignments:
        *parents, name = assignment.place
        node: Any = table
        for parent in parents:
            node = node.setdefault(parent, {}) if isinstance(node, dict) else node
        if not isinstance(node, dict) or isinstance(node.get(name), dict):
            problems.append(f"{_dotted(assignment.place)} ({assignment.origin}): a whole and a part of it are both set")
        else:
            node[name] = assignment.value
    return table


def _merge(model: type[BaseModel] | None, below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """The upper table over the lower one; ``model`` says which fields they have."""
    merged = dict(below)
    for name, value in above.items():
        field = model.model_fields.get(name) if model else None
        if isinstance(value, _Typed):
            value = _parse(value, field)
        if isinstance(value, dict):
            kept = merged.get(name)
            if not isinstance(kept, dict) or _picks_other_kind(field, kept, value):
                kept = {}
            value = _merge(_member(field, kept | value), kept, value)
        merged[name] = value
    return merged


def _picks_other_kind(field: FieldInfo | None, below: dict[str, Any], above: dict[str, Any]) -> bool:
    tag = field.discriminator if field else None
    return isinstance(tag, str) and tag in above and above[tag] != below.get(tag)


def _member(field: FieldInfo | None, value: dict[str, Any]) -> type[BaseModel] | None:
    """The model that a table of this field stands for."""
    models = _models(field.annotation) if field else []
    tag = field.discriminator if field else None
    if isinstance(tag, str):
        models = [model for model in models if model.model_fields[tag].default == value.get(tag)]
    return models[0] if models else None


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Every model that an annotation names: of a union all its members, of a list those of its items."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _parse(text: _Typed, field: FieldInfo | None) -> Any:
    if field is not None and field.annotation is str:
        return str(text)  # a revision such as 1234567 stays text
    try:
        return json.loads(text)
    except ValueError:
        return str(text)


@dataclass(frozen=True)
class _Origins:
    """The layers above the defaults, to say which of them gave a value."""

    profile: str
    table: dict[str, Any]
    assignments: Sequence[_Assignment]

    def find(self, place: Place) -> str:
        for assignment in reversed(self.assignments):
            shared = min(len(place), len(assignment.place))
            if place[:shared] == assignment.place[:shared]:
                return assignment.origin
        node: Any = self.table
        for part in place:
            if not isinstance(node, dict):
                break  # a list comes whole from one layer
            if part not in node:
                return "default"
            node = node[part]
        return self.profile


def _explain(cls: type[Settings], error: Mapping[str, Any], origins: _Origins) -> str:
    """One line: ``path = value (origin): what is accepted``."""
    place, owner, models = _locate(cls, error["loc"])
    value, context = error["input"], error.get("ctx", {})
    name = place[-1] if place else ""
    match error["type"]:
        case "extra_forbidden":
            accepted = f"unknown; accepted: {_choices(name, owner.model_fields)}"
        case "missing":
            field = owner.model_fields[str(name)]
            return (
                f"{_dotted(place)} ({origins.find(place[:-1])}): missing; accepted: {field.description or field.title}"
            )
        case "union_tag_invalid" | "union_tag_not_found":
            tag = context["discriminator"].strip("'")
            place, value = (*place, tag), context.get("tag")
            accepted = f"accepted: {_choices(value, [model.model_fields[tag].default for model in models])}"
        case "literal_error":
            accepted = f"accepted: {_choices(value, get_args(owner.model_fields[str(name)].annotation))}"
        case "model_type" | "model_attributes_type":
            fields = dict.fromkeys(field for model in models for field in model.model_fields)
            accepted = f"accepted: a table of {_choices(None, fields)}"
        case "value_error":
            return f"{_dotted(place)} ({origins.find(place)}): {context['error']}" if place else str(context["error"])
        case _:
            accepted = error["msg"].replace("Input should be", "accepted:")
    return f"{_dotted(place)} = {_shorten(value)} ({origins.find(place)}): {accepted}"


def _locate(cls: type[Settings], location: Place) -> tuple[Place, type[BaseModel], list[type[BaseModel]]]:
    """Of an error's location: the place, the model whose field it is (in), and the models that may stand there.

    Pydantic also names the chosen member of a tagged union, which is no part of the place.
    """
    place: Place = ()
    owner: type[BaseModel] = cls
    models: list[type[BaseModel]] = [cls]
    for part in location:
        if len(models) > 1 and isinstance(part, str):
            models = [model for model in models if any(field.default == part for field in model.model_fields.values())]
            continue
        place = (*place, part)
        if isinstance(part, str):
            owner = models[0]
            field = owner.model_fields.get(part)
            models = _models(field.annotation) if field else []
    return place, owner, models


def _choices(given: object, known: Iterable[object]) -> str:
    names = [str(name) for name in known]
    close = difflib.get_close_matches(str(given), names, n=1, cutoff=0.7)
    return ", ".join(names) + (f"; did you mean {close[0]}?" if close else "")


def _dotted(place: Place) -> str:
    return ".".join(map(str, place))


def _shorten(value: object) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:59]}…"
