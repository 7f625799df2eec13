"""Bundling of a module and its imports from this project into one self-contained Python file.

The bundle is the code that an exported model carries. It is a single file because diffusers copies
such files into one folder that all models share, where a second file could belong to another model.
"""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

_PACKAGES = ("tld_model", "data_catalog", "pipeline", "flows")
_FUTURE = "from __future__ import annotations"


def bundle_source(module: str) -> str:
    """Source of the bundle, in which imported modules come before the modules that use them.

    Every name may be defined only once. Of imports from this project, only
    `from package.module import name` at the top level of a module is supported.
    """
    parts: dict[str, str] = {}
    names: dict[str, str] = {}
    _collect(module, parts, names)
    body = "\n\n".join(f"# {name.replace('.', '/')}.py\n\n{text}" for name, text in parts.items())
    return f"{_FUTURE}\n\n{body}"


def _collect(module: str, parts: dict[str, str], names: dict[str, str]) -> None:
    """Add a module's source to `parts`, after that of its imports, and its names to `names`."""
    if module in parts:
        return
    spec = importlib.util.find_spec(module)
    assert spec
    assert spec.origin
    source = Path(spec.origin).read_text(encoding="utf-8")
    tree, lines = ast.parse(source), source.splitlines()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in (
            *_PACKAGES,
            "__future__",
        ):
            assert not any(alias.asname for alias in node.names), (
                f"{module} imports a name under an alias"
            )
            lines[node.lineno - 1 : node.end_lineno] = [""] * len(
                lines[node.lineno - 1 : node.end_lineno]
            )
            if node.module != "__future__":
                _collect(str(node.module), parts, names)
        for name in _defined_names(node):
            assert names.setdefault(name, module) == module, (
                f"{name} is defined in both {names[name]} and {module}"
            )
    parts[module] = "\n".join(lines).strip() + "\n"


def _defined_names(node: ast.stmt) -> list[str]:
    """Names that a top-level statement defines."""
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []
