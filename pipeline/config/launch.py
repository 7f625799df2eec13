"""Launch settings: the machines and processes that train."""

from __future__ import annotations

import re

from pydantic import Field, field_validator, model_validator

from pipeline.config.section import Section


class LaunchConfig(Section):
    """The machines and processes that train. More of them sum the gradients in another
    order."""

    nodes: int = Field(1, ge=1, le=4096)
    """Number of machines that train together. Run the same command on every one of them, or, with
    engine.kind=ray, on only one. The workspace must be on a disk that all of them see under the
    same path."""
    processes: int = Field(1, ge=1, le=4096)
    """Number of processes per machine, each on its own GPU. Every batch is divided among the
    processes of all machines."""
    rendezvous: str | None = None
    """host:port at which several nodes meet: the name or address by which the others reach one of
    them, and a free port on it. That node leads: only it writes outputs and reports."""

    @property
    def ranks(self) -> int:
        """Number of processes over all nodes."""
        return self.nodes * self.processes

    @property
    def meeting_place(self) -> tuple[str, int]:
        """Host and port of the rendezvous; any free port of this machine for a single node."""
        host, _, port = (self.rendezvous or "127.0.0.1:0").rpartition(":")
        return host, int(port)

    @field_validator("rendezvous")
    @classmethod
    def _is_host_and_port(cls, rendezvous: str | None) -> str | None:
        match = re.fullmatch(r"[^/\s:]+:(\d{1,5})", rendezvous) if rendezvous is not None else None
        if rendezvous is not None and not (match and 0 < int(match[1]) < 1 << 16):
            raise ValueError("give host:port, for example host0:29400")
        return rendezvous

    @model_validator(mode="after")
    def _nodes_can_meet(self) -> LaunchConfig:
        if self.nodes > 1 and not self.rendezvous:
            raise ValueError(f"{self.nodes} nodes need a rendezvous: the host:port of one of them")
        return self
