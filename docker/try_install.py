"""A trial of the installation in docker/Dockerfile without a container engine.

The lines that install the project run in a scratch folder, with the files that .dockerignore lets
through:

    python docker/try_install.py --target cpu --scratch FOLDER

Then the installed `tld` is run. `--torch-index` replaces the build argument TORCH_INDEX.
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
    """The instructions of each build stage, after those of the stage that it builds on."""
    instructions: dict[str, list[str]] = {}
    lines = re.sub(r"\\\n\s*", "", dockerfile).splitlines()
    for line in (line for line in lines if line and not line.startswith("#")):
        if line.startswith("FROM "):
            _, base, _, name = line.split()
            instructions[name] = [*instructions.get(base, [])]
        elif instructions:
            instructions[name].append(line)
    return instructions


def context() -> Iterator[Path]:
    """The build context: tracked files below the names with ! in .dockerignore."""
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


def copy(sources: list[str], folder: Path) -> None:
    """Copy these files of the build context into a folder, or all of it: "."."""
    for path in context():
        if {".", path.as_posix()} & {*sources}:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, folder / path)


def run_lines(instructions: list[str], scratch: Path, torch_index: str | None) -> dict[str, str]:
    """Execute RUN, COPY … ., ARG, ENV and WORKDIR below the scratch folder. Returns the resulting
    environment."""
    environment, folder = dict(os.environ), scratch
    for line in instructions:
        word, _, rest = line.partition(" ")
        rest = re.sub(r"--mount=\S+\s+", "", rest)
        for root in ("/opt/tld", "/src"):
            rest = rest.replace(root, f"{scratch}{root}")
        print(f"{word} {rest}", flush=True)
        if word == "RUN":
            subprocess.run(["sh", "-ec", rest], cwd=folder, env=environment, check=True)
        elif word == "WORKDIR":
            folder = Path(rest)
            folder.mkdir(parents=True)
        elif word == "COPY":
            *sources, target = rest.split()
            assert target == ".", f"{line}: only copies into the working folder are supported"
            copy(sources, folder)
        elif word in ("ARG", "ENV"):
            for name, value in re.findall(r"(\w+)=(\S+)", rest):
                environment[name] = value.replace("$PATH", environment["PATH"])
            if torch_index:
                environment["TORCH_INDEX"] = torch_index
    return environment


def main() -> None:
    """Install, then run the installed command `tld config`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--scratch", type=Path, required=True, help="Folder to create; it takes about 3 GB."
    )
    parser.add_argument(
        "--torch-index", help="Index of torch's CPU build, if pytorch.org cannot be reached."
    )
    options = parser.parse_args()
    scratch = options.scratch.resolve()
    scratch.mkdir(parents=True)
    instructions = stages((ROOT / "docker/Dockerfile").read_text())[f"build-{options.target}"]
    environment = run_lines(instructions, scratch, options.torch_index)
    subprocess.run(
        ["tld", "config", str(ROOT / "conf/tiny.yaml")], cwd=scratch, env=environment, check=True
    )


if __name__ == "__main__":
    main()
