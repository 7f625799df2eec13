"""A module of ours, with all of ours that it imports, as one Python file that needs none of our
packages.

For code that travels with a model: diffusers copies such files into one folder that all models
share, where a second file of ours could be another model's.
"""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

_ROOMS = ("tld_model", "data_catalog", "pipeline", "flows")
_FUTURE = "from __future__ import annotations"


def bundle_source(module: str) -> str:
    """The source: what is imported comes first, so that every name is defined once, before it is
    used. Only `from room.module import name` at a module's top is understood."""
    parts: dict[str, str] = {}
    names: dict[str, str] = {}
    _collect(module, parts, names)
    body = "\n\n".join(f"# {name.replace('.', '/')}.py\n\n{text}" for name, text in parts.items())
    return f"{_FUTURE}\n\n{body}"


def _collect(module: str, parts: dict[str, str], names: dict[str, str]) -> None:
    """Add a module's own text to the parts, after those of what it imports; its names to the
    names."""
    if module in parts:
        return
    spec = importlib.util.find_spec(module)
    assert spec
    assert spec.origin
    source = Path(spec.origin).read_text(encoding="utf-8")
    tree, lines = ast.parse(source), source.splitlines()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in (
            *_ROOMS,
            "__future__",
        ):
            assert not any(alias.asname for alias in node.names), (
                f"{module} renames what it imports"
            )
            lines[node.lineno - 1 : node.end_lineno] = [""] * len(
                lines[node.lineno - 1 : node.end_lineno]
            )
            if node.module != "__future__":
                _collect(str(node.module), parts, names)
        for name in _defined(node):
            assert names.setdefault(name, module) == module, (
                f"{name} is in both {names[name]} and {module}"
            )
    parts[module] = "\n".join(lines).strip() + "\n"


def _defined(node: ast.stmt) -> list[str]:
    """Names that a statement gives to a module."""
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []
