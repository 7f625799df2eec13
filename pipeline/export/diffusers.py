"""Export of a trained model as a folder that diffusers loads without this project."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from data_catalog.storage.files import replacing_folder
from pipeline.config.evaluate import EvaluateConfig
from pipeline.export.bundle_source import bundle_source
from pipeline.export.diffusers_transformer import TldTransformer
from pipeline.export.model_card import CARD_FILE, Usage
from pipeline.generate.generator import ImageGenerator

_INDEX = "model_index.json"
_CLASS = ["pipeline", "TldPipeline"]  # module and class, in pipeline.py
_COMPONENTS = ("transformer", "vae", "text_encoder", "tokenizer")
_WRITTEN = {_INDEX, "pipeline.py", CARD_FILE, *_COMPONENTS}


class ExportError(ValueError):
    """An export must not be written to this folder; the message says why."""


def check_target(out: Path) -> None:
    """Raise ExportError unless the folder is missing, empty or an earlier export."""
    if not out.parent.is_dir():
        raise ExportError(f"there is no folder {out.parent} to write {out.name} into")
    if not out.exists():
        return
    if not out.is_dir():
        raise ExportError(f"{out} is a file, not a folder")
    others = sorted({path.name for path in out.iterdir()} - _WRITTEN)
    if others:
        raise ExportError(
            f"{out} contains {', '.join(others[:3])}, which an export does not write; "
            "choose another folder"
        )
    if any(out.iterdir()) and _class_of(out) != _CLASS:
        raise ExportError(f"{out} is not an earlier export; choose another folder")


def export_diffusers(
    generate: ImageGenerator,
    defaults: EvaluateConfig,
    card: Callable[[Usage], str],
    prompt: str,
    out: Path,
    *,
    place: str = ".",
) -> None:
    """Write the folder, in place of an earlier export if there is one.

    `defaults` are the pipeline's sampling settings where a call passes none; `prompt` is that of
    the example in the card, and `place` where it loads the model: "." is the folder itself, others
    are names on the hub. Raises ExportError if the folder must not be replaced.
    """
    check_target(out)
    out = out.absolute()
    with replacing_folder(out) as unfinished:
        _write(generate, defaults, unfinished)
        (unfinished / CARD_FILE).write_text(card(_usage(defaults, prompt, place)), encoding="utf-8")


def _write(generate: ImageGenerator, defaults: EvaluateConfig, out: Path) -> None:
    transformer = TldTransformer(generate.denoiser.config.model_dump(mode="json"))
    transformer.denoiser.load_state_dict(generate.denoiser.state_dict())
    transformer.save_pretrained(out / "transformer")
    generate.codec.vae.save_pretrained(out / "vae")
    generate.text_encoder.model.save_pretrained(out / "text_encoder")
    generate.text_encoder.tokenizer.save_pretrained(out / "tokenizer")
    (out / "pipeline.py").write_text(
        bundle_source("pipeline.export.diffusers_pipeline"), encoding="utf-8"
    )
    (out / "transformer" / "tld_transformer.py").write_text(
        bundle_source("pipeline.export.diffusers_transformer"), encoding="utf-8"
    )
    (out / _INDEX).write_text(
        json.dumps(_index(generate, defaults), indent=2) + "\n", encoding="utf-8"
    )


def _index(generate: ImageGenerator, defaults: EvaluateConfig) -> dict[str, Any]:
    """Contents of model_index.json: library and class of each component, pipeline arguments."""
    return {
        "_class_name": _CLASS,
        "_diffusers_version": version("diffusers"),
        "transformer": ["tld_transformer", "TldTransformer"],
        "vae": ["diffusers", type(generate.codec.vae).__name__],
        "text_encoder": ["transformers", type(generate.text_encoder.model).__name__],
        "tokenizer": ["transformers", type(generate.text_encoder.tokenizer).__name__],
        "sampling": asdict(defaults.sampling),
        "encodings": {
            "latents": {"scale": generate.codec.scaling_factor, "shift": generate.codec.shift},
            "text": asdict(generate.text_encoder.recipe),
        },
    }


def _usage(defaults: EvaluateConfig, prompt: str, place: str) -> Usage:
    """Example for the card. If the place is ".", it is to be run inside the exported folder."""
    explained = '# "." is this folder; pass its path, or its name on the hub.\n'
    code = f"""import torch
from diffusers import DiffusionPipeline

{explained if place == "." else ""}\
# It runs the code in pipeline.py and transformer/tld_transformer.py.
pipe = DiffusionPipeline.from_pretrained({json.dumps(place)}, trust_remote_code=True)
images = pipe(
    {json.dumps(prompt)},
    num_inference_steps={defaults.steps},
    guidance_scale={defaults.guidance:g},
    num_images_per_prompt=4,
    # one generator per image, or a single one for all
    generator=[torch.Generator().manual_seed(seed) for seed in range(4)],
).images
images[0].save("picture.png")"""
    return Usage("diffusers", "With `pip install diffusers transformers torch pydantic`:", code)


def _class_of(folder: Path) -> Any:
    try:
        return json.loads((folder / _INDEX).read_text(encoding="utf-8")).get("_class_name")
    except (OSError, ValueError, AttributeError):
        return None
