"""PNG files of sample requests, with the metadata to repeat them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.generate.generator import ImageGenerator
from pipeline.generate.image_metadata import ImageMetadata, Origin
from pipeline.generate.png_metadata import write_image
from pipeline.generate.request import SampleRequest
from pipeline.reporting.image_grid import image_grid

# Progress callback: calls of the denoiser done, calls in total, images done.
ProgressFn = Callable[[int, int, int], None]


@dataclass(frozen=True, slots=True)
class ImageWriter:
    """A loaded model, and what its images say of where they come from."""

    generate: ImageGenerator
    origin: Origin

    def to_folder(self, request: SampleRequest, folder: Path, on_progress: ProgressFn) -> None:
        """Write a PNG for each image as soon as it is generated.

        For example, 0002-seed7.png is an image of the third prompt.

        Raises:
            SizeError: the model cannot generate this size.
            ImageFileError: a file cannot be written.
        """
        folder.mkdir(exist_ok=True)
        seeds, captions = request.seeds, request.captions
        for number, pixels in enumerate(self._images(request, on_progress)):
            one = request.model_copy(
                update={
                    "prompts": (captions[number],),
                    "seed": seeds[number],
                    "count": 1,
                    "layout": "picture",
                }
            )
            path = folder / f"{number // request.count:04}-seed{one.seed}.png"
            self._write(Image.fromarray(pixels), one, pixels.shape, path)

    def to_file(self, request: SampleRequest, path: Path, on_progress: ProgressFn) -> None:
        """Write one PNG: a grid of all images over their prompts, or a single image.

        Raises:
            SizeError: the model cannot generate this size.
            ImageFileError: the file cannot be written.
        """
        images = list(self._images(request, on_progress))
        image = (
            image_grid(images, request.captions)
            if request.layout == "grid"
            else Image.fromarray(images[0])
        )
        self._write(image, request, images[0].shape, path)

    def _images(
        self, request: SampleRequest, on_progress: ProgressFn
    ) -> Iterator[NDArray[np.uint8]]:
        """Yield each image [h, w, 3], in the order of the captions."""
        captions, calls, done = request.captions, 0, 0
        total = -(-len(captions) // self.generate.batch_size) * request.sampling.model_calls

        def after_call() -> None:
            nonlocal calls
            calls += 1
            on_progress(calls, total, done)

        how = request.sampling, request.negative, request.size, after_call
        for part in self.generate.draw(captions, request.seeds, *how):
            done += len(part)
            yield from part

    def _write(
        self, image: Image.Image, request: SampleRequest, shape: tuple[int, ...], path: Path
    ) -> None:
        sized = request.model_copy(update={"size": (shape[1], shape[0])})
        write_image(image, ImageMetadata(request=sized, origin=self.origin), path)
