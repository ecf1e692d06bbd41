"""The probe of a share, on a driver library of our own that keeps limits as the real one does."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from fairshare.devices.device import Device
from fairshare.devices.driver import Driver
from fairshare.errors import PartitionError
from fairshare.records import Mode
from fairshare.sharing.mps_control import MEMORY_VARIABLE, PERCENTAGE_VARIABLE, PIPE_VARIABLE
from fairshare.sharing.plan import PartitionPlan, Slot
from fairshare.sharing.probing import probe, probe_shares
from fairshare.sharing.slots import plan_of
from fairshare.spec.launcher import DeviceKind

GIB = 1024**3
UUID = "00112233-4455-6677-8899-aabbccddeeff"
H200 = Device(DeviceKind.CUDA, f"GPU-{UUID}", "NVIDIA H200", 140 * GIB, index=0, sm_count=132)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the library, which the system's C compiler makes."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler (cc or gcc) to make a driver library to probe")
    folder = tmp_path_factory.mktemp("libcuda")
    source = Path(__file__).with_name("fake_libcuda.c")
    made = folder / "libcuda.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", made, source], check=True)
    return folder


@pytest.fixture
def driver(library: Path) -> Driver:
    """A driver whose libcuda is ours."""
    return Driver(env={"LD_LIBRARY_PATH": str(library)})


@pytest.fixture
def capped(tmp_path: Path) -> Slot:
    """Half of the SMs and 20 GiB by MPS, with a daemon's folder that is there."""
    env = {
        "CUDA_VISIBLE_DEVICES": H200.id,
        PIPE_VARIABLE: str(tmp_path),
        PERCENTAGE_VARIABLE: "50",
        MEMORY_VARIABLE: "0=20480M",
    }
    return Slot("a", ("a",), "m", compute_fraction=0.5, memory_bytes=20 * GIB, env=env)


def plan(slot: Slot, device: Device = H200) -> PartitionPlan:
    """A plan of one slot."""
    return plan_of(Mode.MPS, device, [slot])


async def test_a_share_in_force_is_seen(driver: Driver, capped: Slot) -> None:
    """SMs, memory, UUID and the refusal of more than the cap are read through libcuda alone."""
    seen = await probe_shares(plan(capped), driver)
    assert seen == {
        "a": {
            "devices": 1,
            "uuid": UUID,
            "name": "NVIDIA H200",
            "sm_count": 66,
            "total_bytes": 140 * GIB,
            "free_bytes": 20 * GIB - GIB // 2,
            "beyond_cap_refused": True,
        }
    }


async def test_a_client_without_a_daemon_is_found_out(
    driver: Driver, capped: Slot, tmp_path: Path
) -> None:
    """CUDA runs without limits and says nothing; the probe says what it got."""
    astray = replace(capped, env={**capped.env, PIPE_VARIABLE: str(tmp_path / "none")})
    with pytest.raises(PartitionError, match="not in force") as caught:
        await probe(H200, astray, driver)
    assert "SMs: planned 66 of 132, has 132" in caught.value.evidence
    assert "memory: more than the cap could be allocated" in caught.value.evidence


async def test_a_cap_that_is_not_in_force_is_found_out(driver: Driver, capped: Slot) -> None:
    """A memory limit that fell away alone is told by itself."""
    loose = replace(capped, env={**capped.env, "FAKE_NO_LIMIT": "1"})
    with pytest.raises(PartitionError) as caught:
        await probe(H200, loose, driver)
    assert [line.partition(":")[0] for line in caught.value.evidence] == ["memory", "memory"]


async def test_a_server_that_recovers_is_waited_for(
    driver: Driver, capped: Slot, tmp_path: Path
) -> None:
    """The MPS server's "not ready" is asked again, and not taken for an answer."""
    busy = tmp_path / "busy"
    busy.touch()
    seen = await probe(
        H200, replace(capped, env={**capped.env, "FAKE_BUSY_ONCE": str(busy)}), driver
    )
    assert seen["sm_count"] == 66
    assert not busy.exists()


async def test_a_gpu_that_cannot_be_used_is_told(driver: Driver, capped: Slot) -> None:
    """The failing call, its code and what to do about it are named."""
    failing = replace(capped, env={**capped.env, "FAKE_INIT": "805"})
    with pytest.raises(PartitionError, match=r"cuInit: .* \(805\)") as caught:
        await probe(H200, failing, driver)
    assert "MPS daemon" in (caught.value.hint or "")


async def test_without_a_driver_library_nothing_is_claimed(capped: Slot, tmp_path: Path) -> None:
    """A machine without libcuda, or with a broken one, gives an error and no share."""
    (tmp_path / "libcuda.so.1").write_text("not a library")
    with pytest.raises(PartitionError, match="libcuda") as caught:
        await probe(H200, capped, Driver(env={"LD_LIBRARY_PATH": str(tmp_path)}))
    assert "libcuda" in (caught.value.hint or "")


async def test_other_devices_are_not_probed(capped: Slot) -> None:
    """Only a real GPU has a CUDA driver to ask."""
    cpu = Device(DeviceKind.CPU, "cpu", "cpu", GIB, cores=(0,))
    assert await probe_shares(plan(capped, cpu), Driver()) == {}
