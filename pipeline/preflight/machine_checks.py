"""Preflight checks of the machine: workspace, devices, other machines, compiler, open files."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

from data_catalog.storage.files import write_problem
from data_catalog.storage.object_access import ObjectStorageError
from data_catalog.storage.object_store import check_object_root, is_url
from pipeline.compute.hardware import c_compiler, cxx_compiler
from pipeline.compute.resource_limits import descriptor_limit
from pipeline.config.run import RunConfig

_FEWEST_DESCRIPTORS = 128  # for pipes to workers and servers, connections and shard files


def _root_is_writable(config: RunConfig) -> Iterator[str]:
    name = "root"
    if is_url(config.root):
        name = "cache.folder"
        try:
            check_object_root(config.root)
        except ObjectStorageError as error:
            yield f"root: {error}"
    folder = config.folder.absolute()
    places = (folder, *folder.parents)
    existing = next(path for path in places if path.exists() or path.is_symlink())
    if existing.is_symlink() and not existing.exists():
        yield f"{name}: {existing} is a link to a file that does not exist"
    elif not existing.is_dir():
        yield f"{name}: {existing} is a file, not a folder"
    elif write_problem(existing / "file"):
        yield f"{name}: cannot write to {existing}; choose another folder with {name}=…"


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
    if config.train.compile is not True:
        return
    on_gpu = False
    if config.train.device != "cpu":
        import torch

        on_gpu = torch.cuda.is_available()
    language, name = ("C", c_compiler()) if on_gpu else ("C++", cxx_compiler())
    if not name:
        yield (
            f"train.compile: needs a {language} compiler, but none was found (gcc, clang); install "
            "one, or set train.compile=false"
        )


def _descriptors(_config: RunConfig) -> Iterator[str]:
    if descriptor_limit() in range(_FEWEST_DESCRIPTORS):
        yield (
            f"this process may open only {descriptor_limit()} files at a time, but a run needs "
            f"{_FEWEST_DESCRIPTORS}: raise the limit with `ulimit -n 1024`"
        )


MACHINE_CHECKS: tuple[Callable[[RunConfig], Iterator[str]], ...] = (
    _root_is_writable,
    _engine,
    _devices,
    _gpu_per_process,
    _rendezvous,
    _shared_folder,
    _compiler,
    _descriptors,
)
