"""Where a model is: its files, the encoders that belong to it, and its identity."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data_catalog.figures import EncodingsFigures
from data_catalog.model_files import Average, average_file
from data_catalog.storage.digests import file_digest
from data_catalog.storage.manifest import Manifest
from pipeline.generate.image_metadata import Encoder, ModelIdentity
from tld_model.config import Precision, SamplingSettings
from tld_model.encoders.names import SHIPPED_ENCODERS, encoder_folder, encoder_identity

if TYPE_CHECKING:
    from pipeline.generate.generator import ImageGenerator


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A denoiser's file, the encoders that it works with, and a description of where it comes
    from that makes sense on other machines."""

    denoiser: Path
    vae: str
    text_model: str
    source: str

    def load(
        self, device: str, *, precision: Precision = "auto", safetensors_only: bool = False
    ) -> ImageGenerator:
        """The model, ready to sample. Raises CheckpointError or EncoderError."""
        from pipeline.generate.generator import load_generator

        return load_generator(
            self.denoiser,
            self.vae,
            self.text_model,
            device,
            precision=precision,
            safetensors_only=safetensors_only,
        )

    def sampling(self, default: SamplingSettings) -> SamplingSettings:
        """How it samples if nothing else is chosen: a distilled model in its own way. Raises
        CheckpointError."""
        from tld_model.checkpoint import read_sampling

        return read_sampling(self.denoiser) or default

    def identity(self) -> ModelIdentity:
        """What distinguishes it from other models, without any path of this machine. Reads all its
        files."""
        vae, text = _encoder(self.vae), _encoder(self.text_model)
        return ModelIdentity(
            source=self.source[:300], digest=file_digest(self.denoiser), vae=vae, clip=text
        )


def source_of_run(name: str, encodings: Manifest, model: Manifest, ema: Average) -> ModelSource:
    """The model of a run of this name: its average `ema`."""
    encoders, path = EncodingsFigures.of(encodings).encoders, model.file(average_file(ema))
    source = f"{name}, {path.parent.name}/{path.name}"
    return ModelSource(path, encoders.vae, encoders.text_model, source)


def _encoder(name: str) -> Encoder:
    is_path = name not in SHIPPED_ENCODERS and encoder_folder(name)
    return Encoder(name=Path(name).name if is_path else name, identity=encoder_identity(name))
