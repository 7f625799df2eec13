"""Options of `tld export` that say where an export goes, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from flows.cli.out_path import file_problems, folder_problems

_NEW = "A new one is private, unless you add --public; one that exists stays as it is."
Out = Annotated[
    Path | None,
    Parameter(
        help="Folder to write; an earlier export in it is replaced. With --format safetensors, the "
        "file. It may be left out with --push."
    ),
]
Format = Annotated[
    Literal["diffusers", "safetensors"],
    Parameter(
        name="--format",
        help="'diffusers' is a folder with denoiser, VAE and text encoder. 'safetensors' is the "
        "denoiser in one file, which tld's --model takes; its metadata has the architecture and "
        "the names of the encoders, which it does not hold.",
    ),
]
Push = Annotated[
    str | None,
    Parameter(
        help="Upload the folder to this repository of the Hugging Face hub, OWNER/NAME. "
        f"{_NEW} Needs `hf auth login`, or HF_TOKEN with a token that may write."
    ),
]
Space = Annotated[
    str | None,
    Parameter(
        help="Beside --push: upload a Gradio app that samples with the model to this Space, "
        f"OWNER/NAME. {_NEW}"
    ),
]
Public = Annotated[bool, Parameter(negative="", help="Let all see what --push and --space create.")]
License = Annotated[
    str | None,
    Parameter(
        name="--license",
        help="Licence of the weights for the model card, by the hub's name for it, such as mit or "
        "cc-by-4.0. [default: unknown]",
    ),
]


@dataclass(frozen=True, slots=True)
class ExportTarget:
    """Where an export goes, and what is said of it there."""

    out: Path | None
    is_file: bool
    push: str | None
    space: str | None
    public: bool
    license: str | None

    @property
    def repositories(self) -> dict[str, str]:
        """The names on the hub, by option."""
        named = {"--push": self.push, "--space": self.space}
        return {option: name for option, name in named.items() if name is not None}


def target_problems(target: ExportTarget) -> Iterator[str]:
    """All that is wrong with the options."""
    from pipeline.export.hub import license_problem, name_problem

    if target.out:
        yield from (
            file_problems(target.out, [".safetensors"])
            if target.is_file
            else folder_problems(target.out)
        )
    elif target.is_file or not target.push:
        yield "--out: say where to write, or name a repository of the hub with --push"
    for option, name in target.repositories.items():
        if problem := name_problem(name):
            yield f"{option}: {problem}"
    if target.push and target.is_file:
        yield "--push: a repository has the folder for diffusers; leave --format out"
    if target.space and not target.push:
        yield "--space: the app loads the model from the hub; name its repository with --push"
    if target.public and not target.push:
        yield "--public is for what --push creates"
    if target.license is not None and (problem := license_problem(target.license)):
        yield f"--license: {problem}"
    if target.license is not None and target.is_file:
        yield "--license is for the model card, which a single file does not have"
