"""``nvidia-smi`` for one GPU: ask, change, and read the tables of every driver since R450.

Words and exit codes are not trusted: a change counts once a later question shows it. Tables come in
two widths, so rows are read by their pattern, not by column.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from fairshare.errors import PartitionError
from fairshare.sharing import rights
from fairshare.sharing.tools import Answer, run_tool, tool_env

Row = TypeVar("Row")

_QUERY_S = 10.0
_CHANGE_S = 40.0  # an undo, which is a question and a change, is given a minute

_PROFILE = re.compile(
    r"^\|\s+\d+\s+MIG\s+(\d+g\.\d+gb(?:[+-][\w.]+)*)\s+(\d+)\s+(\d+)/(\d+)\s+([\d.]+)\s+\S+"
    r"\s+(\d+)\s+(\d+)\s+(\d+)\s*\|\s*\n"
    r"\|\s+(\d+)\s+(\d+)\s+(\d+)\s*\|",
    re.MULTILINE,
)
_PLACEMENT = re.compile(
    r"^GPU\s+\d+\s+Profile ID\s+(\d+)\s+Placements?\s*:\s*\{([\d,\s]*)\}:(\d+)", re.MULTILINE
)
_GPU_INSTANCE = re.compile(
    r"^\|\s+(\d+)\s+MIG\s+(\S+)\s+(\d+)\s+(\d+)\s+(\d+):(\d+)\s*\|", re.MULTILINE
)
_COMPUTE_INSTANCE = re.compile(
    r"^\|\s+(\d+)\s+(\d+)\s+MIG\s+(\S+)\s+(\d+)\*?\s+(\d+)(?:\s+\d+:\d+)?\s*\|", re.MULTILINE
)
_GPU_LINE = re.compile(r"^GPU (\d+): .*\(UUID: (\S+)\)")
_MIG_LINE = re.compile(r"^\s+MIG (\S+)\s+Device\s+(\d+): \(UUID: (MIG-\S+)\)")
_NOTHING_THERE = re.compile(r"No MIG-enabled devices found|No (?:GPU|compute) instances found")


@dataclass(frozen=True, slots=True)
class MigMode:
    """MIG mode of a GPU now, and after the next reset: ``Enabled``, ``Disabled`` or ``[N/A]``."""

    current: str
    pending: str


@dataclass(frozen=True, slots=True)
class GpuModes:
    """What of a GPU's settings a change of MIG mode may touch."""

    mig: MigMode
    compute: str
    persistence: str


@dataclass(frozen=True, slots=True)
class ListedProfile:
    """A row of ``mig -lgip``; engines are copy, decode, encode, JPEG and optical flow."""

    name: str
    id: int
    free: int
    total: int
    memory_gib: float
    sm_count: int
    engines: tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class ListedPlacements:
    """A line of ``mig -lgipp``: where instances of a profile may begin, in memory slices."""

    profile_id: int
    starts: tuple[int, ...]
    size: int


@dataclass(frozen=True, slots=True, order=True)
class GpuInstance:
    """A row of ``mig -lgi``; ``start`` and ``size`` are in memory slices."""

    id: int
    profile: str
    profile_id: int
    start: int
    size: int


@dataclass(frozen=True, slots=True, order=True)
class ComputeInstance:
    """A row of ``mig -lci``."""

    gpu_instance: int
    id: int
    profile: str


@dataclass(frozen=True, slots=True)
class MigDevice:
    """A MIG line of ``nvidia-smi -L``."""

    profile: str
    index: int
    uuid: str


def parse_profiles(text: str) -> list[ListedProfile]:
    """The rows of ``mig -lgip``."""
    found = []
    for name, id_, free, total, gib, *counts in _PROFILE.findall(text):
        sm, decode, encode, copy, jpeg, ofa = map(int, counts)
        engines = (copy, decode, encode, jpeg, ofa)
        found.append(ListedProfile(name, int(id_), int(free), int(total), float(gib), sm, engines))
    return found


def parse_placements(text: str) -> list[ListedPlacements]:
    """The lines of ``mig -lgipp``."""
    return [
        ListedPlacements(
            int(id_), tuple(int(start) for start in starts.split(",") if start.strip()), int(size)
        )
        for id_, starts, size in _PLACEMENT.findall(text)
    ]


def parse_gpu_instances(text: str) -> list[GpuInstance]:
    """The rows of ``mig -lgi``."""
    return [
        GpuInstance(int(id_), profile, int(profile_id), int(start), int(size))
        for _, profile, profile_id, id_, start, size in _GPU_INSTANCE.findall(text)
    ]


def parse_compute_instances(text: str) -> list[ComputeInstance]:
    """The rows of ``mig -lci``."""
    return [
        ComputeInstance(int(gpu_instance), int(id_), profile)
        for _, gpu_instance, profile, _, id_ in _COMPUTE_INSTANCE.findall(text)
    ]


def parse_mig_devices(text: str, gpu: str) -> list[MigDevice]:
    """The MIG devices below the GPU (index or UUID) in ``nvidia-smi -L``."""
    found, inside = [], False
    for line in text.splitlines():
        if match := _GPU_LINE.match(line):
            inside = gpu in match.groups()
        elif inside and (match := _MIG_LINE.match(line)):
            found.append(MigDevice(match[1], int(match[2]), match[3]))
    return found


class NvidiaSmi:
    """``nvidia-smi`` bound to one GPU, given by UUID or index.

    Every method raises PartitionError when the tool is missing, does not answer in time, or
    answers something that is no answer to the question.
    """

    def __init__(self, gpu: str, driver_env: Mapping[str, str]) -> None:
        self.gpu = gpu
        self._driver_env = dict(driver_env)

    async def product(self) -> str:
        """The product name, as the inventory has it."""
        return (await self._ask("name"))[0]

    async def mig_mode(self) -> MigMode:
        """MIG mode, current and pending."""
        return MigMode(*await self._ask("mig.mode.current", "mig.mode.pending"))

    async def modes(self) -> GpuModes:
        """MIG mode, compute mode and persistence mode."""
        *mig, compute, persistence = await self._ask(
            "mig.mode.current", "mig.mode.pending", "compute_mode", "persistence_mode"
        )
        return GpuModes(MigMode(*mig), compute, persistence)

    async def profiles(self) -> list[ListedProfile]:
        """Profiles that the GPU offers."""
        answer = await self._run("mig", "-i", self.gpu, "-lgip")
        return _rows("the MIG profiles cannot be listed", answer, parse_profiles(answer.output))

    async def placements(self) -> list[ListedPlacements]:
        """Where an instance of each profile may lie, whatever lies there now."""
        answer = await self._run("mig", "-i", self.gpu, "-lgipp")
        return _rows("the MIG placements cannot be listed", answer, parse_placements(answer.output))

    async def gpu_instances(self) -> list[GpuInstance]:
        """GPU instances that exist."""
        answer = await self._run("mig", "-i", self.gpu, "-lgi")
        found = parse_gpu_instances(answer.output)
        return _rows("the GPU instances cannot be listed", answer, found)

    async def compute_instances(self) -> list[ComputeInstance]:
        """Compute instances that exist."""
        answer = await self._run("mig", "-i", self.gpu, "-lci")
        found = parse_compute_instances(answer.output)
        return _rows("the compute instances cannot be listed", answer, found)

    async def mig_devices(self) -> list[MigDevice]:
        """MIG devices with the UUIDs by which CUDA knows them."""
        answer = await self._run("-L")
        if answer.returncode != 0:
            raise _unexpected("the MIG devices cannot be listed", answer)
        return parse_mig_devices(answer.output, self.gpu)

    async def set_mig_mode(self, enabled: bool) -> Answer:
        """Ask for a change of MIG mode; whether it came is for :meth:`mig_mode` to say."""
        return await self._change("-i", self.gpu, "-mig", "1" if enabled else "0")

    async def reset(self) -> Answer:
        """Ask for a reset of the GPU, which makes a pending MIG mode current."""
        return await self._change("--gpu-reset", "-i", self.gpu)

    async def set_compute_mode(self, mode: str) -> Answer:
        """Ask for a compute mode, in the word that :meth:`modes` has for it."""
        return await self._change("-i", self.gpu, "-c", mode.upper())

    async def set_persistence_mode(self, mode: str) -> Answer:
        """Ask for a persistence mode, in the word that :meth:`modes` has for it."""
        return await self._change("-i", self.gpu, "-pm", mode.upper())

    async def create(self, profile_id: int, start: int) -> Answer:
        """Ask for a GPU instance at a memory slice, with its default compute instance."""
        return await self._change("mig", "-i", self.gpu, "-cgi", f"{profile_id}:{start}", "-C")

    async def destroy_compute_instances(self, gpu_instance: int) -> Answer:
        """Ask for the end of all compute instances of one GPU instance."""
        return await self._change("mig", "-i", self.gpu, "-dci", "-gi", str(gpu_instance))

    async def destroy_gpu_instance(self, gpu_instance: int) -> Answer:
        """Ask for the end of one GPU instance, which must be empty."""
        return await self._change("mig", "-i", self.gpu, "-dgi", "-gi", str(gpu_instance))

    async def _ask(self, *fields: str) -> list[str]:
        question = f"--query-gpu={','.join(fields)}"
        answer = await self._run("-i", self.gpu, question, "--format=csv,noheader")
        values = [value.strip() for value in answer.output.strip().split(",")]
        if answer.returncode != 0 or len(values) != len(fields):
            raise _unexpected("the modes of the GPU cannot be read", answer)
        return values

    async def _run(self, *arguments: str) -> Answer:
        env = tool_env(self._driver_env)
        return await run_tool(["nvidia-smi", *arguments], env, timeout_s=_QUERY_S)

    async def _change(self, *arguments: str) -> Answer:
        """Everything that changes the driver goes through here, with the rights to do so."""
        env = tool_env(self._driver_env)
        argv = ["nvidia-smi", *arguments]
        return await run_tool(argv, env, timeout_s=_CHANGE_S, privileged=True)


def _rows(problem: str, answer: Answer, rows: list[Row]) -> list[Row]:
    """The rows, unless there are none because the question failed."""
    if not rows and answer.returncode != 0 and not _NOTHING_THERE.search(answer.output):
        raise _unexpected(problem, answer)
    return rows


def _unexpected(problem: str, answer: Answer) -> PartitionError:
    permission = "permission" in answer.output.lower()
    return PartitionError(
        f"{problem}: {' '.join(answer.argv)} (exit code {answer.returncode})",
        evidence=answer.lines[-5:],
        hint=rights.HINT if permission else None,
    )


def said(answers: Sequence[Answer]) -> list[str]:
    """The last words of each answer, for evidence."""
    return [line for answer in answers for line in answer.lines[-3:]]
