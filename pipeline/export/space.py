"""The files of a Gradio Space: a page on the Hugging Face hub that samples with a model there."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from pipeline.export.model_card import CARD_FILE
from pipeline.reporting.render import render_page
from tld_model.config import SamplingSettings

_GRADIO = "6.31.0"
_PYTHON = "3.12"
_LIBRARIES = ("diffusers", "torch", "transformers")
_ANY_VERSION = "pydantic>=2\n"  # which one is for gradio to choose


def write_space(folder: Path, model: str, prompt: str, sampling: SamplingSettings) -> None:
    """Write the files into a folder. `model` is the model's name on the hub, `prompt` an
    example."""
    title = model.rpartition("/")[2]
    texts = {
        "app.py": render_page(
            "space_app.py.j2",
            model=repr(model),
            prompt=repr(prompt),
            steps=sampling.steps,
            guidance=sampling.guidance,
        ),
        "requirements.txt": _ANY_VERSION
        + "".join(f"{name}=={_public_version(name)}\n" for name in _LIBRARIES),
        CARD_FILE: render_page(
            "space_readme.md.j2", title=title, model=model, gradio=_GRADIO, python=_PYTHON
        ),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def _public_version(library: str) -> str:
    """The version of a library as package indexes have it, without what names a build."""
    return version(library).partition("+")[0]
