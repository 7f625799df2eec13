"""`--like`: the settings that a PNG records, as what a request starts from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from cyclopts import Parameter

from flows.cli.problems import Problems, attempt
from flows.terminal.console import say
from flows.terminal.errors import UserError

if TYPE_CHECKING:
    from pipeline.config.run import RunConfig
    from pipeline.generate.generator import ImageGenerator
    from pipeline.generate.image_metadata import ImageMetadata, ModelIdentity, Origin
    from pipeline.generate.model_source import ModelSource
    from pipeline.generate.request import GenerationRequest, InputFile
    from tld_model.config import SamplingSettings

Request = TypeVar("Request", bound="GenerationRequest")
Like = Annotated[
    Path | None,
    Parameter(
        help="Take the settings that this PNG of tld records. One of the same command is repeated; "
        "of another, prompts, negative prompt, seed and sampling settings are taken. Each option "
        "given beside it changes only that option. CONFIG and --model still say where the model is."
    ),
]
OtherModel = Annotated[
    bool,
    Parameter(negative="", help="With --like: sample even if the PNG was made with another model."),
]
OtherImage = Annotated[
    bool,
    Parameter(
        negative="", help="With --like: go on even if the PNG was made from another image or mask."
    ),
]
_MOST_SHOWN = 5  # problems of a PNG that somebody else may have written


@dataclass(frozen=True, slots=True)
class Basis:
    """What a request starts from: the settings of the run, the PNG of --like, and the model."""

    settings: RunConfig
    like: Path | None
    recorded: ImageMetadata | None  # metadata of the PNG of --like
    source: ModelSource | None
    identity: ModelIdentity | None  # read already if the PNG names its model
    problems: tuple[str, ...]  # with --like and the model

    def record_of(self, kind: type[Request]) -> Request | None:
        """The request that the PNG of --like records, if it is of this kind."""
        request = self.recorded.request if self.recorded else None
        return request if isinstance(request, kind) else None

    def fields(self, kind: type[Request], changes: Mapping[str, Any]) -> dict[str, Any]:
        """The options that are set, over the recorded request or the defaults of the run."""
        from pipeline.generate.request import GenerationRequest

        own = self.settings.evaluate.sampling
        base = {"seed": 0, **asdict(self.source.sampling(own) if self.source else own)}
        if recorded := self.record_of(kind):
            base |= dict(recorded)
        elif self.recorded:
            shared = GenerationRequest.model_fields
            base |= {name: getattr(self.recorded.request, name) for name in shared}
        return base | {name: value for name, value in changes.items() if value is not None}

    def validate(
        self, kind: type[Request], fields: Mapping[str, Any], needed: Mapping[str, str]
    ) -> tuple[Request | None, list[str]]:
        """The request with these fields, and all that is wrong with it. `needed` says for each
        field what is wrong if it is missing, if it is not known yet; "nothing" stands for it while
        the others are checked."""
        from pydantic import ValidationError

        from pipeline.generate.field_problems import problems_of
        from pipeline.generate.request import InputFile

        placeholders = {"prompts": ("nothing",), "image": InputFile(name="", sha256="")}
        missing = {name: placeholders[name] for name in needed if name not in fields}
        is_unread = self.like is not None and self.recorded is None
        problems = [] if is_unread else [needed[name] for name in missing if needed[name]]
        try:
            return kind.model_validate({**fields, **missing}), problems
        except ValidationError as error:
            return None, [
                *problems,
                *(f"{_option(place)}{problem}" for place, problem in problems_of(error)),
            ]

    def input_problems(
        self, recorded: InputFile | None, file: InputFile | None, option: str, *, other_image: bool
    ) -> list[str]:
        """Why the PNG of --like cannot be repeated with this input file, which `option` names."""
        if recorded is None:
            return []
        was = f"--like: {self.like} was made from {recorded.name!r} ({recorded.sha256[:12]})"
        if file is None:
            return [f"{was}; name that file as {option}"]
        if other_image or recorded.sha256 == file.sha256:
            return []
        return [
            f"{was}, but {option} is {file.name!r} ({file.sha256[:12]}); name that file, or use "
            "this one with --other-image"
        ]

    def load(self, kind: type[Request]) -> tuple[ImageGenerator, Origin]:
        """The model, and what its images say of where they come from. Prints what of the PNG of
        --like is not repeated."""
        from pipeline.generate.image_metadata import Origin

        assert self.source
        identity = self.identity or self.source.identity()
        evaluation = self.settings.evaluate
        generate = self.source.load(evaluation.device, precision=evaluation.precision)
        origin = Origin.of(identity, generate.device)
        for note in self._notes(kind, origin):
            say(note)
        return generate, origin

    def _notes(self, kind: type[Request], origin: Origin) -> list[str]:
        if not self.recorded:
            return []
        notes, recorded = [], self.recorded.origin
        if not self.record_of(kind):
            notes.append(
                f"{self.like} is of tld {self.recorded.request.command}: its prompts, negative "
                "prompt, seed and sampling settings are taken"
            )
        if recorded.model is None:
            notes.append(
                f"{self.like} is of a service of an earlier version, which recorded prompts, seed, "
                "steps and guidance; all else is that of this run"
            )
        if recorded.device and recorded.device != origin.device:
            notes.append(
                f"the image was made on a {recorded.device}; rounding on this {origin.device} "
                "differs slightly"
            )
        return notes


def read_basis(
    settings: RunConfig,
    like: Path | None,
    resolve: Callable[[], ModelSource],
    *,
    other_model: bool,
) -> Basis:
    """The basis of a request. `resolve` finds the model, and raises UserError if there is none."""
    recorded, like_problems = attempt(_read_like, like, settings.evaluate.sampling)
    source, model_problems = attempt(resolve)
    identity, differences = None, list[str]()
    if source and recorded and recorded.origin.model and not other_model:
        identity = source.identity()
        differences = _model_problems(recorded.origin.model, identity)
    problems = (*like_problems, *model_problems, *differences)
    return Basis(settings, like, recorded, source, identity, problems)


def _read_like(like: Path | None, own: SamplingSettings) -> ImageMetadata | None:
    """The metadata of a PNG, which somebody else may have written. Raises UserError or Problems if
    it cannot be used."""
    if like is None:
        return None
    from pydantic import ValidationError

    from pipeline.generate.field_problems import problems_of
    from pipeline.generate.png_metadata import ImageFileError, read_metadata

    try:
        return read_metadata(like, own)
    except ImageFileError as error:
        raise UserError(f"--like: {error}") from error
    except ValidationError as error:
        lines = [f"{place}: {problem}" for place, problem in problems_of(error)]
        raise Problems(
            [
                f"--like: the metadata of {like} is invalid: {_printable(line)}"
                for line in lines[:_MOST_SHOWN]
            ]
        ) from error


def _model_problems(recorded: ModelIdentity, identity: ModelIdentity) -> list[str]:
    if not (differences := recorded.differences(identity)):
        return []
    return [
        f"--like: the image was made with another model: {'; '.join(differences)}. Select that "
        "model with CONFIG and its settings, --ema or --model, or use this one with --other-model"
    ]


def _option(place: str) -> str:
    """prompts.3 -> 'prompt 4: '; to_seed -> '--to-seed: '; outpaint.left -> '--outpaint: left: '"""
    name, _, rest = place.partition(".")
    if name == "prompts":
        return f"prompt {int(rest) + 1}: " if rest.isdigit() else "prompts: "
    part = f"{rest}: " if rest and not rest.isdigit() else ""
    return f"--{name.replace('_', '-')}: {part}" if name else ""


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text[:300])
