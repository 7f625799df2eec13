"""Run the lines of docker/Dockerfile that install the project, without a container engine: in a
scratch folder, from the files that .dockerignore lets through.

    python docker/try_install.py --target cpu --scratch FOLDER

Then `tld` runs from there. `--torch-index` stands for the build argument of that name.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]


def stages(dockerfile: str) -> dict[str, list[str]]:
    """The instructions of each stage, those that it builds on first."""
    found: dict[str, list[str]] = {}
    lines = re.sub(r"\\\n\s*", "", dockerfile).splitlines()
    for line in (line for line in lines if line and not line.startswith("#")):
        if line.startswith("FROM "):
            _, base, _, name = line.split()
            found[name] = [*found.get(base, [])]
        elif found:
            found[name].append(line)
    return found


def context() -> Iterator[Path]:
    """What a build sees: tracked files under the names with ! in .dockerignore."""
    let_through = [
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    listed = subprocess.run(
        ["git", "ls-files", "-z", *let_through],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    yield from (Path(name) for name in listed.stdout.split("\0") if name)


def run_lines(instructions: list[str], scratch: Path, torch_index: str | None) -> dict[str, str]:
    """Execute RUN, COPY . ., ARG, ENV and WORKDIR below the scratch folder; the environment that
    they leave."""
    environment, folder = dict(os.environ), scratch
    for line in instructions:
        word, _, rest = line.partition(" ")
        rest = re.sub(r"--mount=\S+\s+", "", rest)
        for there in ("/opt/tld", "/src"):
            rest = rest.replace(there, f"{scratch}{there}")
        print(f"{word} {rest}", flush=True)
        if word == "RUN":
            subprocess.run(["sh", "-ec", rest], cwd=folder, env=environment, check=True)
        elif word == "WORKDIR":
            folder = Path(rest)
            folder.mkdir(parents=True)
        elif word == "COPY":
            assert rest == ". .", f"{line}: only the whole context is copied here"
            for path in context():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / path, folder / path)
        elif word in ("ARG", "ENV"):
            for name, value in re.findall(r"(\w+)=(\S+)", rest):
                environment[name] = value.replace("$PATH", environment["PATH"])
            if torch_index:
                environment["TORCH_INDEX"] = torch_index
    return environment


def main() -> None:
    """Install, then let the installed command read a run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--scratch", type=Path, required=True, help="Folder to make; some 3 GB.")
    parser.add_argument(
        "--torch-index", help="Index of torch's CPU build, where pytorch.org cannot be reached."
    )
    given = parser.parse_args()
    scratch = given.scratch.resolve()
    scratch.mkdir(parents=True)
    made = stages((ROOT / "docker/Dockerfile").read_text())[f"build-{given.target}"]
    environment = run_lines(made, scratch, given.torch_index)
    subprocess.run(
        ["tld", "config", str(ROOT / "conf/tiny.yaml")], cwd=scratch, env=environment, check=True
    )


if __name__ == "__main__":
    main()
