"""Preflight checks of a run: all problems that can be detected before any work, reported at
once."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator

from data_catalog.model_files import model_file
from data_catalog.shapes import dataset as shapes
from data_catalog.storage.files import write_problem
from data_catalog.storage.object_access import ObjectStorageError
from data_catalog.storage.object_store import check_object_root, is_url
from data_catalog.url_table.table import UrlTableError, open_url_table
from pipeline.compute.resource_limits import descriptor_limit
from pipeline.config.run import RunConfig
from pipeline.config.section import ConfigError
from pipeline.dataset.caption_sampling import wrong_weights
from tld_model.encoders.config_files import (
    ClipConfig,
    VaeConfig,
    encoder_config,
    encoder_problem,
    vae_downscale,
)

_FEWEST_DESCRIPTORS = 128  # for pipes to workers and servers, connections and shard files


def check_run(config: RunConfig) -> None:
    """Raise ConfigError if a run cannot succeed because of its URL table, encoders, shapes, devices
    or folders."""
    problems = [problem for check in _CHECKS for problem in check(config)]
    if problems:
        raise ConfigError(
            "cannot start this run:\n" + "\n".join(f"  {problem}" for problem in problems)
        )


def _url_table(config: RunConfig) -> Iterator[str]:
    try:
        open_url_table(config.download.urls, config.download.columns)
    except UrlTableError as error:
        yield f"download.urls: {error}"


def _encoders(config: RunConfig) -> Iterator[str]:
    for setting, name in (("encode.vae", config.encode.vae), ("encode.clip", config.encode.clip)):
        if problem := encoder_problem(name):
            yield f"{setting}: {problem}"


def _shapes_fit(config: RunConfig) -> Iterator[str]:
    """Compare the model with encoders on this disk; encoders on a hub are checked after their
    download."""
    if (vae := encoder_config(config.encode.vae, VaeConfig)) is not None:
        factor = vae_downscale(config.encode.vae)
        if factor and config.download.image_size % factor:
            yield (
                f"download.image_size: {config.download.image_size} is not a multiple of {factor}, "
                "which the VAE requires"
            )
        elif factor:
            yield from _compare(config, "latent_size", config.download.image_size // factor)
        yield from _compare(config, "latent_channels", vae.latent_channels)
    if (clip := encoder_config(config.encode.clip, ClipConfig)) is not None:
        pooled = config.model.text == "pooled"
        yield from _compare(
            config, "text_dim", clip.projection_dim if pooled else clip.text_config.hidden_size
        )


def _captions(config: RunConfig) -> Iterator[str]:
    if config.model.text == "tokens" and config.encode.text != "tokens":
        yield (
            "model.text: is tokens, but the encodings will contain only pooled text; set "
            "encode.text=tokens"
        )
    if problem := wrong_weights(config.download.caption_columns, config.train.caption_weights):
        yield f"train.caption_weights: {problem}"


def _split(config: RunConfig) -> Iterator[str]:
    """Require held-out pairs; a split column may provide them, as in the built-in data set."""
    by_column = config.download.split_column or config.download.urls == shapes.NAME
    if config.train.held_out_fraction == 0 and not by_column:
        yield (
            "train.held_out_fraction: is 0, and no split column holds pairs out, so the model "
            "could not be evaluated; raise it, for example to 0.02, or set download.split_column"
        )


def _compare(config: RunConfig, name: str, provided: int | None) -> Iterator[str]:
    have = getattr(config.model, name)
    if provided is not None and have != provided:
        yield (
            f"model.{name}: is {have}, but the encoders produce {provided}; set "
            f"model.{name}={provided}"
        )


def _built_in_data_set(config: RunConfig) -> Iterator[str]:
    if config.download.urls == shapes.NAME and config.download.split_column:
        yield (
            "download.split_column: the built-in data set has its own split; remove this setting"
        )
    if config.download.urls == shapes.NAME and config.download.more_caption_columns:
        yield (
            "download.more_caption_columns: the built-in data set has one caption per image; "
            "remove this setting"
        )
    graded = [name for name in config.evaluate.require if "accuracy" in name]
    if graded and config.download.urls != shapes.NAME:
        yield (
            f"evaluate.require: {', '.join(graded)}: available only for the built-in data set "
            f"{shapes.NAME!r}"
        )


def _root_is_writable(config: RunConfig) -> Iterator[str]:
    name = "root"
    if is_url(config.root):
        name = "cache.folder"
        try:
            check_object_root(config.root)
        except ObjectStorageError as error:
            yield f"root: {error}"
    places = (config.folder, *config.folder.absolute().parents)
    existing = next(path for path in places if path.exists() or path.is_symlink())
    if existing.is_symlink() and not existing.exists():
        yield f"{name}: {existing} is a link to a file that does not exist"
    elif not existing.is_dir():
        yield f"{name}: {existing} is a file, not a folder"
    elif write_problem(existing / "file"):
        yield f"{name}: cannot write to {existing}; choose another folder with {name}=…"


def _initial_weights(config: RunConfig) -> Iterator[str]:
    """Compare the model with the one that train.init_from names."""
    if config.train.init_from is None:
        return
    from tld_model.checkpoint import CheckpointError, check_encoders, read_config
    from tld_model.weight_transfer import incompatible_settings

    path = model_file(config.train.init_from)
    try:
        base = read_config(path)
        check_encoders(path, config.encode.vae, config.encode.clip)
    except CheckpointError as error:
        yield f"train.init_from: {error}"
        return
    for name in incompatible_settings(base, config.model):
        have, theirs = getattr(config.model, name), getattr(base, name)
        yield (
            f"train.init_from: model.{name} is {have}, but {path} has {theirs}; set "
            f"model.{name}={theirs}"
        )


def _engine(config: RunConfig) -> Iterator[str]:
    if config.engine.kind == "ray":
        from pipeline.compute.ray_cluster import ray_problems

        yield from ray_problems(config.engine, config.encode.device, config.train.launch.nodes)


def _devices(config: RunConfig) -> Iterator[str]:
    here = ("train", "evaluate") if config.engine.kind == "ray" else ("encode", "train", "evaluate")
    devices = {(name, getattr(config, name).device) for name in here}
    explicit = sorted((name, device) for name, device in devices if device not in ("auto", "cpu"))
    if explicit:
        from pipeline.compute.devices import DeviceError, choose_device

        for name, device in explicit:
            try:
                choose_device(device)
            except (DeviceError, ValueError) as error:
                yield f"{name}.device: {error}"


def _gpu_per_process(config: RunConfig) -> Iterator[str]:
    requested = config.train.launch.processes
    if requested > 1 and config.train.device != "cpu":
        import torch

        available = torch.cuda.device_count()
        if 0 < available < requested:
            yield (
                f"train.launch.processes: is {requested}, but this machine has {available} CUDA "
                f"devices; set train.launch.processes={available}"
            )


def _rendezvous(config: RunConfig) -> Iterator[str]:
    """Refuse a host name that resolves to a loopback address, as Debian maps a machine's own name
    to 127.0.1.1: other machines could not reach it."""
    launch = config.train.launch
    if launch.nodes == 1:
        return
    host, _ = launch.meeting_place
    try:
        address = socket.gethostbyname(host)
    except OSError as error:
        yield (
            f"train.launch.rendezvous: this machine cannot resolve the host {host!r}: "
            f"{error.strerror}"
        )
        return
    if address.startswith("127.") and host not in ("localhost", address):
        yield (
            f"train.launch.rendezvous: on this machine {host!r} is {address}, which other machines "
            "cannot reach; give the address by which they reach this one"
        )


def _shared_folder(config: RunConfig) -> Iterator[str]:
    """Machines that work on one output together need a shared folder; with object storage each has
    its own copies."""
    if not is_url(config.root):
        return
    hint = "set root to a folder that all of them share"
    if (nodes := config.train.launch.nodes) > 1:
        yield (f"train.launch.nodes: {nodes} machines cannot train with root {config.root}; {hint}")
    if config.engine.address:
        yield (f"engine.address: nodes of a cluster cannot work with root {config.root}; {hint}")


def _compiler(config: RunConfig) -> Iterator[str]:
    name = os.environ.get("CXX", "g++")
    if config.train.compile and not shutil.which(name):
        yield (
            f"train.compile: needs a C++ compiler, but {name!r} was not found; install one, or set "
            "train.compile=false"
        )


def _descriptors(_config: RunConfig) -> Iterator[str]:
    if descriptor_limit() in range(_FEWEST_DESCRIPTORS):
        yield (
            f"this process may open only {descriptor_limit()} files at a time, but a run needs "
            f"{_FEWEST_DESCRIPTORS}: raise the limit with `ulimit -n 1024`"
        )


_CHECKS: tuple[Callable[[RunConfig], Iterator[str]], ...] = (
    _url_table,
    _encoders,
    _shapes_fit,
    _captions,
    _split,
    _built_in_data_set,
    _root_is_writable,
    _engine,
    _initial_weights,
    _devices,
    _gpu_per_process,
    _rendezvous,
    _shared_folder,
    _compiler,
    _descriptors,
)
