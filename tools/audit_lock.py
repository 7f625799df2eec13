"""An audit of the locked versions against PyPI's known vulnerabilities, part of `make check`.

An index that cannot be reached, or that has no such list, is reported and fails nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

LOCKS = [
    Path(__file__).parents[1] / name for name in ("requirements.lock", "requirements-dev.lock")
]


def main() -> int:
    """The exit code: 1 if a locked version has a known vulnerability, otherwise 0."""
    audit = [
        sys.executable,
        "-m",
        "pip_audit",
        "--format=json",
        "--progress-spinner=off",
        "--no-deps",
        "--disable-pip",
    ]
    done = subprocess.run(
        [*audit, *(f"--requirement={lock}" for lock in LOCKS)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except ValueError:
        print(
            "audit: nothing was checked: "
            f"{(done.stderr.strip() or 'no answer').splitlines()[-1][:200]}"
        )
        return 0
    checked = [package for package in packages if "skip_reason" not in package]
    vulnerable = [package for package in checked if package["vulns"]]
    for package in vulnerable:
        for vulnerability in package["vulns"]:
            fixed = ", ".join(vulnerability["fix_versions"]) or "none yet"
            print(
                f"audit: {package['name']} {package['version']}: {vulnerability['id']}; fixed in "
                f"{fixed}"
            )
    print(
        f"audit: {len(checked)} of {len(packages)} locked versions checked, {len(vulnerable)} with "
        "known vulnerabilities"
    )
    return 1 if vulnerable else 0


if __name__ == "__main__":
    sys.exit(main())
