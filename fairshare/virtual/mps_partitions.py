"""Static SM partitions of the stand-in MPS daemon (``-S``): chunks of SMs that are nobody else's.

Standard library only.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

CHUNK_SMS = 8  # as on Hopper; other GPUs may have other sizes
_ROW = "{:<13} {:<35} {:<6} {:<6} {:<5} {:<5} {}"
_ABBREVIATED = 12  # letters of the UUID that the list shows


@dataclass(slots=True)
class Partitions:
    """The partitions of one GPU: chunks by partition id."""

    uuid: str
    sm_count: int
    chunks: dict[str, int] = field(default_factory=dict)

    @property
    def free(self) -> int:
        """Chunks that belong to no partition."""
        return self.sm_count // CHUNK_SMS - sum(self.chunks.values())

    def percentage(self, name: str) -> float | None:
        """Share of the GPU's SMs of ``<uuid>/<id>``; None if there is no such partition."""
        uuid, _, identifier = name.partition("/")
        if uuid != self.uuid or identifier not in self.chunks:
            return None
        return 100 * self.chunks[identifier] * CHUNK_SMS / self.sm_count

    def command(self, arguments: Sequence[str]) -> str:
        """The text printed for ``sm_partition add|rm``."""
        match arguments:
            case ["add", uuid, count] if count.isdigit():
                return self._add(uuid, int(count))
            case ["rm", uuid, identifier]:
                known = uuid and self.uuid.startswith(uuid)
                if not known or self.chunks.pop(identifier, None) is None:
                    return f"Partition {identifier} not found\n"
                return ""
            case _:
                return "usage: sm_partition add <gpu> <chunks> | rm <gpu> <partition>\n"

    def _add(self, uuid: str, count: int) -> str:
        if uuid != self.uuid:
            return f"Device {uuid} not found\n"
        if not 1 <= count <= self.free:
            return f"Failed to create partition: {self.free} chunks are free\n"
        identifier = base64.b64encode(os.urandom(2) + bytes(22), altchars=b"xy").decode()
        self.chunks[identifier] = count
        return f"{self.uuid}/{identifier}\n"

    def table(self, clients: Mapping[str, int]) -> str:
        """The text printed for ``lspart``; ``clients`` counts them by partition id."""
        gpu = self.uuid[:_ABBREVIATED]
        used = sum(self.chunks.values())
        rows: list[tuple[object, ...]] = [
            ("GPU", "Partition", "free", "used", "free", "used", "clients"),
            ("", "", "chunk", "chunk", "SM", "SM", ""),
            (gpu, "-", self.free, used, self.free * CHUNK_SMS, used * CHUNK_SMS, "-"),
        ]
        rows += [
            (gpu, each, "-", count, "-", count * CHUNK_SMS, clients.get(each) or "-")
            for each, count in self.chunks.items()
        ]
        return "".join(_ROW.format(*map(str, row)).rstrip() + "\n" for row in rows)
