"""The locked versions against PyPI's list of known faults: `make audit`, a part of `make check`.

An index that cannot be asked, or that has no such list, is said and fails nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).parents[1] / "requirements.lock"


def main() -> int:
    """0, or 1 where a locked version has a known fault."""
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
        [*audit, f"--requirement={LOCK}"], capture_output=True, text=True, check=False, timeout=300
    )
    try:
        found = json.loads(done.stdout)["dependencies"]
    except ValueError:
        print(
            "audit: nothing was looked up: "
            f"{(done.stderr.strip() or 'no answer').splitlines()[-1][:200]}"
        )
        return 0
    looked_up = [package for package in found if "skip_reason" not in package]
    faulty = [package for package in looked_up if package["vulns"]]
    for package in faulty:
        for fault in package["vulns"]:
            mended = ", ".join(fault["fix_versions"]) or "none yet"
            print(
                f"audit: {package['name']} {package['version']}: {fault['id']}; mended in {mended}"
            )
    print(
        f"audit: {len(looked_up)} of {len(found)} locked versions looked up, {len(faulty)} with "
        "known faults"
    )
    return 1 if faulty else 0


if __name__ == "__main__":
    sys.exit(main())
