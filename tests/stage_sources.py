"""The code behind each stage, as a digest of every module, and whether it is still what was last recorded.

A stage's artifacts are found by a key that knows the stage's version and not its code. So when code changes, somebody
decides: does the stage make something else (raise its version in agpo/stages.py), or the same as before? Either way

    python -m tests.stage_sources            # make acknowledge

records the code in stage_sources.json; with --check it only says what changed, and fails if that is undecided.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import grimp

from agpo.stages import STAGES

ROOT = Path(__file__).resolve().parents[1]
RECORD = Path(__file__).with_suffix(".json")

# How a stage is keyed, run, stored and shown, and not what it makes; settings are in the key by their values.
_MECHANISM = ("agpo.settings", "agpo.stages", "agpo.recipe", "agpo.artifacts", "agpo.progress")
# Imports by a name that is not in the source; of a package: of all that is in it.
_DYNAMIC = {"agpo.verify.pool": ("agpo.verify.nursery",), "agpo.verify.registry": ("agpo.verify.symbolic",)}
_DISCOVERING = ("agpo.objectives", "agpo.objectives.losses")

_DECIDE = (
    "Artifacts of such a stage would be found although other code made them. If it makes something else than before, "
    "raise its version in agpo/stages.py; if not, acknowledge the change: python -m tests.stage_sources"
)
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class Sources(NamedTuple):
    version: int
    modules: dict[str, str]  # digest by name


def read_sources() -> dict[str, Sources]:
    """Of each stage, the modules of `agpo` that it is made of, by their imports at any depth."""
    graph = grimp.build_graph("agpo", exclude_type_checking_imports=True, cache_dir=None)
    for module in _MECHANISM:
        for part in (module, *graph.find_descendants(module)):
            graph.remove_module(part)
    found = {package: graph.find_children(package) - {f"{package}.__main__"} for package in _DISCOVERING}
    for importer, imported in (_DYNAMIC | found).items():
        for module in imported:
            graph.add_import(importer=importer, imported=module)
    sources = {}
    for stage in STAGES:
        entrance = stage.function.partition(":")[0]
        modules = {entrance, *graph.find_upstream_modules(entrance)}
        sources[stage.name] = Sources(stage.version, {name: _digest_module(name) for name in sorted(modules)})
    return sources


def digest_code(text: str) -> str:
    """Of the syntax tree without docstrings: comments, layout and quotes do not count."""
    return hashlib.sha256(json.dumps(_reduce(ast.parse(text))).encode()).hexdigest()[:16]


def find_undecided(recorded: dict[str, Sources], present: dict[str, Sources]) -> list[str]:
    """A line for each stage whose code is not the recorded one although its version is, and what to do."""
    lines = []
    for name, (version, modules) in present.items():
        known = recorded.get(name, Sources(version, {}))
        changed = [
            module
            for module in sorted(modules.keys() | known.modules.keys())
            if modules.get(module) != known.modules.get(module)
        ]
        if changed and version == known.version:
            lines.append(f"stage {name}, version {version}: changed since it was recorded: {', '.join(changed)}")
    return [*lines, _DECIDE] if lines else []


def read_record(file: Path = RECORD) -> dict[str, Sources]:
    return {name: Sources(**entry) for name, entry in json.loads(file.read_text(encoding="utf-8")).items()}


def write_record(sources: dict[str, Sources], file: Path = RECORD) -> None:
    content = {name: entry._asdict() for name, entry in sources.items()}
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _digest_module(name: str) -> str:
    path = ROOT.joinpath(*name.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return digest_code(file.read_text(encoding="utf-8"))


def _reduce(node: Any) -> Any:
    """A node as nested lists. Absent and empty fields are left out: versions of Python differ in them."""
    if isinstance(node, list):
        return [_reduce(item) for item in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = dict(ast.iter_fields(node))
    if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
        fields["body"] = node.body[1:]
    return [type(node).__name__, *([name, _reduce(value)] for name, value in fields.items() if value not in (None, []))]


def main() -> None:
    present = read_sources()
    if "--check" not in sys.argv[1:]:
        write_record(present)
    elif lines := find_undecided(read_record(), present):
        sys.exit("\n".join(lines))


if __name__ == "__main__":
    main()
