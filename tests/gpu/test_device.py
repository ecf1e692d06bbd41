"""What is told of a real GPU: telemetry, and the doctor's findings."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import orjson
import pytest

from fairshare.devices.nvml import Gpu, Nvml
from tests.gpu.clients import Client
from tests.workplace import Workplace

pytestmark = pytest.mark.gpu
Start = Callable[..., Client]
MIB = 1024**2


def _smi(gpu: Gpu, *fields: str) -> dict[str, str]:
    asked = ["nvidia-smi", "-i", gpu.uuid, f"--query-gpu={','.join(fields)}"]
    done = subprocess.run(
        [*asked, "--format=csv,noheader,nounits"], capture_output=True, text=True, check=True
    )
    return dict(zip(fields, map(str.strip, done.stdout.split(",")), strict=True))


def _compute_pids(gpu: Gpu) -> list[int]:
    asked = ["nvidia-smi", "-i", gpu.uuid, "--query-compute-apps=pid", "--format=csv,noheader"]
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
    return sorted(int(line) for line in done.stdout.split("\n") if line.strip().isdigit())


def _number(text: str) -> float | None:
    """A figure; None for ``[N/A]`` and ``[Not Supported]``."""
    return None if text.startswith("[") else float(text)


def test_the_gpu_is_the_one_that_nvidia_smi_shows(gpu: Gpu) -> None:
    """Name, UUID, index, driver and memory are nvidia-smi's."""
    said = _smi(gpu, "name", "uuid", "index", "driver_version", "memory.total")
    assert (said["name"], said["uuid"], int(said["index"])) == (gpu.name, gpu.uuid, gpu.index)
    assert said["driver_version"] == gpu.driver
    assert int(said["memory.total"]) == pytest.approx(gpu.memory_bytes / MIB, abs=1)


def test_a_sample_agrees_with_nvidia_smi(gpu: Gpu) -> None:
    """Memory in use, power and temperature are within what they change in a moment."""
    sampler = Nvml().sampler(gpu.uuid)
    sample = sampler.sample()
    sampler.close()
    said = _smi(gpu, "memory.used", "memory.reserved", "power.draw", "temperature.gpu")
    assert sample is not None
    assert sample.memory_used_bytes is not None
    # nvidia-smi tells apart what the driver keeps for itself, NVML's older call does not.
    used_mib, reserved_mib = float(said["memory.used"]), _number(said["memory.reserved"]) or 0
    assert -64 < sample.memory_used_bytes / MIB - used_mib < reserved_mib + 64
    for ours, theirs, tolerance in (
        (sample.power_w, _number(said["power.draw"]), {"rel": 0.5}),
        (sample.temperature_c, _number(said["temperature.gpu"]), {"abs": 10}),
    ):
        assert (ours is None) == (theirs is None)
        assert ours is None or ours == pytest.approx(theirs, **tolerance)


def test_compute_processes_are_those_of_nvidia_smi(gpu: Gpu, client: Start) -> None:
    """A CUDA program comes and goes in the list as it does in nvidia-smi's."""
    before = _compute_pids(gpu)
    holding = client("hold")
    during = _compute_pids(gpu)
    assert sorted(each.pid for each in Nvml().compute_processes(gpu.uuid)) == during
    # In a container the driver may show others or none of the machine's processes.
    assert set(during) - set(before) <= {holding.pid}
    holding.end()


def test_the_doctor_examines_it(workplace: Workplace, gpu: Gpu) -> None:
    """Every finding has a level and what to do, and the exit code follows from them."""
    told = workplace.run("doctor", "--device", "cuda", "--gpu", gpu.uuid, "--json")
    document = orjson.loads(told.stdout)
    findings = {finding["name"]: finding for finding in document["findings"]}
    assert {"gpu", "gpu processes", "compute mode", "mig mode"} <= findings.keys()
    assert findings["gpu"]["level"] == "ok"
    assert gpu.name in findings["gpu"]["says"]
    failed = [each for each in document["findings"] if each["level"] == "fail"]
    assert all(each["fix"] for each in failed)
    assert told.returncode == (3 if failed else 0)
