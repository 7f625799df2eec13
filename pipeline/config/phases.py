"""Phases of training: the settings of a run that change from one training to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from pipeline.config.download import DownloadConfig
from pipeline.config.encode import EncodeConfig
from pipeline.config.section import Section, section_of
from pipeline.config.train import TrainConfig
from tld_model.config import DenoiserConfig

FIRST: Final = "first"
"""The name of the phase that the file itself describes."""
SECTIONS: Final[Mapping[str, type[BaseModel]]] = {
    "download": DownloadConfig,
    "encode": EncodeConfig,
    "model": DenoiserConfig,
    "train": TrainConfig,
}
_FIRST_WEIGHTS = ("init_from", "continue_from")
_OF_ONE_PHASE = ("mix",)  # empty in the next one
_PLACES = ("source", "urls", "images")  # to name one of them is to name another data set

_LONGEST_NAME = 40

PhaseName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]*$", max_length=_LONGEST_NAME)]
Tree = dict[str, Any]
"""Settings as they are typed."""
Run = TypeVar("Run")


class PhaseConfig(Section):
    """One more training. It begins with the weights of the phase before it, the first moving
    average, and has all its settings except those given here."""

    download: dict[str, Any] = Field({})
    """Settings of download that change."""
    encode: dict[str, Any] = Field({})
    """Settings of encode that change."""
    model: dict[str, Any] = Field({})
    """Settings of model that change: latent_size, or inpainting=true."""
    train: dict[str, Any] = Field({})
    """Settings of train that change. steps counts the steps of this phase alone."""

    @model_validator(mode="before")
    @classmethod
    def _changes_its_training_alone(cls, settings: Any) -> Any:
        if isinstance(settings, dict) and (others := sorted(settings.keys() - SECTIONS.keys())):
            raise ValueError(
                f"has {', '.join(others)}, but a phase changes {', '.join(SECTIONS)} alone; what "
                "all phases share stands at the top of the file"
            )
        return settings

    @field_validator("train")
    @classmethod
    def _begins_with_the_phase_before(cls, train: Tree) -> Tree:
        if twice := [name for name in _FIRST_WEIGHTS if train.get(name) is not None]:
            raise ValueError(
                f"{' and '.join(twice)}: a phase begins with the weights of the phase before it; "
                "remove this setting, or set it at the top of the file for the first phase"
            )
        return train


def phases_of(tree: Tree) -> Tree:
    """The phases after the first, as they are typed; {} if there are none."""
    phases = tree.get("phases")
    return phases if isinstance(phases, dict) else {}


def up_to_chosen(tree: Tree) -> Tree:
    """The settings without the phases after the one that `phase` names. Raises ValueError if there
    is no such phase."""
    names, chosen = [FIRST, *phases_of(tree)], tree.get("phase")
    if FIRST in names[1:]:
        raise ValueError(f"phases.{FIRST}: the training of `train` has this name; choose another")
    if not isinstance(chosen, str):
        return tree
    if chosen not in names:
        shown = chosen[:_LONGEST_NAME]
        raise ValueError(f"phase: there is no phase {shown!r}; known: {', '.join(names)}")
    until = names[1 : names.index(chosen) + 1]
    return tree | {"phases": {name: tree["phases"][name] for name in until}}


def validate_phases(
    tree: Tree, before: Callable[[Tree], Run], last: Callable[[Tree], Run]
) -> tuple[Run, Run]:
    """The run up to the phase before the last one, and the run, each made of its settings by one of
    the functions. Raises ValidationError with the problems of both."""
    runs: list[Run] = []
    problems: list[ErrorDetails] = []
    try:
        runs.append(before(_without_last(tree)))
    except ValidationError as error:
        problems += error.errors()
    try:
        runs.append(last(_of_last(tree)))
    except ValidationError as error:
        problems += _added(error.errors(), problems, list(tree["phases"])[-1])
    if problems:
        details = [
            InitErrorDetails(
                type=PydanticCustomError(p["type"], p["msg"]), loc=p["loc"], input=p["input"]
            )
            for p in problems
        ]
        raise ValidationError.from_exception_data("RunConfig", details)
    return runs[0], runs[1]


def stored_phases(sections: Mapping[str, Mapping[str, Tree]]) -> Tree:
    """The sections of each phase as a file has them: those of the first, and what changes in each
    later one."""
    first, *later = sections.values()
    changes = {
        phase: {
            name: changed
            for name, section in SECTIONS.items()
            if (changed := _changed(section, before[name], after[name]))
        }
        for phase, before, after in zip([*sections][1:], [first, *later], later, strict=False)
    }
    return {**first, "phases": changes}


def _without_last(tree: Tree) -> Tree:
    """The settings without the last phase, and without what belongs to the last model alone."""
    *names, _ = phases_of(tree)
    before = tree | {
        "phases": {name: tree["phases"][name] for name in names},
        "phase": names[-1] if names else FIRST,
        "distill": None,
    }
    if isinstance(evaluate := tree.get("evaluate"), dict):
        of_model = ("model", "ema", "require")
        before["evaluate"] = {key: evaluate[key] for key in evaluate if key not in of_model}
    return before


def _of_last(tree: Tree) -> Tree:
    """The settings in which each section is that of the last phase."""
    phases = phases_of(tree)
    sections = {name: tree[name] for name in SECTIONS if name in tree}
    for phase in phases.values():
        for name, section in SECTIONS.items():
            changes = phase.get(name) if isinstance(phase, dict) else None
            before = sections.get(name, {})
            if isinstance(before, dict) and isinstance(changes, dict):
                sections[name] = _merged(section, _inherited(name, before, changes), changes)
    return tree | sections | {"phase": tree.get("phase") or list(phases)[-1]}


def _added(
    problems: list[ErrorDetails], before: Sequence[ErrorDetails], phase: str
) -> Iterator[ErrorDetails]:
    """The problems of a phase that those before it do not have, with the phase in their place."""
    reported = {(loc, p["msg"]) for p in before for loc in (p["loc"], p["loc"][2:])}
    for problem in problems:
        if (location := problem["loc"], problem["msg"]) in reported:
            continue
        if location and location[0] in SECTIONS:
            problem["loc"] = ("phases", phase, *location)
        yield problem


def _changed(section: type[BaseModel], before: Tree, after: Tree) -> Tree:
    """The settings of a section, as it is stored, that differ from the phase before."""
    changes = {}
    for name, value in after.items():
        inherited = {} if name in _OF_ONE_PHASE else before[name]
        if value != inherited and name not in _FIRST_WEIGHTS:
            inner = section_of(section, name)
            changes[name] = _changed(inner, before[name], value) if inner else value
    return changes


def _inherited(name: str, before: Tree, changes: Tree) -> Tree:
    """The settings of a section of the phase before that a phase takes over."""
    dropped: tuple[str, ...] = (*_FIRST_WEIGHTS, *_OF_ONE_PHASE) if name == "train" else ()
    if name == "download" and any(place in changes for place in _PLACES):
        dropped = _PLACES
    return {key: value for key, value in before.items() if key not in dropped}


def _merged(section: type[BaseModel], before: Tree, changes: Tree) -> Tree:
    """A section with changes; those of a section in it are merged too."""
    merged = before | changes
    for name, value in changes.items():
        inner, former = section_of(section, name), before.get(name)
        if inner and isinstance(value, dict) and isinstance(former, dict):
            merged[name] = _merged(inner, former, value)
    return merged
