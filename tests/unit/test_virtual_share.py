"""Which share a process finds, in the environments that the partitioners make."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairshare.virtual import nvidia_smi
from fairshare.virtual.driver import install
from fairshare.virtual.mps_protocol import Limits, client_limits, format_memory, parse_memory
from fairshare.virtual.share import NoDeviceError, find_share
from fairshare.virtual.state import STATE_ENV, mig_devices, read_state

GIB = 1024**3


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A simulated A100-40, visible to the stand-in tools."""
    install(tmp_path, "a100-40")
    monkeypatch.setenv(STATE_ENV, str(tmp_path))
    return tmp_path


def env(gpu: Path, **more: str) -> dict[str, str]:
    """A server's environment."""
    return {STATE_ENV: str(gpu), "CUDA_MPS_PIPE_DIRECTORY": str(gpu / "no-mps"), **more}


def split(gpu: Path, profiles: str) -> list[str]:
    """Cut the GPU into MIG instances; their UUIDs."""
    assert nvidia_smi.main(["-i", "0", "-mig", "1"]) == 0
    assert nvidia_smi.main(["mig", "-i", "0", "-cgi", profiles, "-C"]) == 0
    return [device.uuid for device in mig_devices(read_state(gpu))]


def test_without_a_simulated_driver_the_whole_gpu_is_ours() -> None:
    """A server started by hand has the named GPU to itself."""
    share = find_share({}, "h200")
    assert share.label == "timeslice"
    assert share.gpu.sm_count == 132
    assert share.state_dir is None


def test_without_mps_or_mig_the_gpu_is_time_sliced(gpu: Path) -> None:
    """The plain environment gives the device, shared in time; a stale pipe changes nothing."""
    share = find_share(env(gpu), "ignored")
    assert (share.label, share.partition_id) == ("timeslice", 0)
    assert share.report()["compute_fraction"] == 1.0
    assert share.memory_total == 40 * GIB


def test_a_mig_uuid_gives_that_instance(gpu: Path) -> None:
    """SMs, bandwidth and memory are the profile's; two instances are two partitions."""
    small, large = split(gpu, "19,9")[::-1]
    one = find_share(env(gpu, CUDA_VISIBLE_DEVICES=small), "")
    two = find_share(env(gpu, CUDA_VISIBLE_DEVICES=large), "")
    assert one.label == two.label == "mig"
    assert one.partition.sm_share == 14 / 108
    assert one.partition.bandwidth_share == 1 / 8
    assert one.memory_total == round(4.75 * GIB)
    assert two.report() == {
        "sharing": "mig",
        "compute_fraction": 42 / 108,
        "bandwidth_fraction": 0.5,
        "memory_bytes": round(19.5 * GIB),
        "device_uuid": large,
    }
    assert one.partition_id != two.partition_id


def test_under_mig_a_process_sees_one_instance_at_most(gpu: Path) -> None:
    """Without a choice CUDA takes the first; without instances there is no device."""
    nvidia_smi.main(["-mig", "1"])
    with pytest.raises(NoDeviceError, match="No CUDA GPUs are available"):
        find_share(env(gpu), "")
    nvidia_smi.main(["mig", "-cgi", "9,9", "-C"])
    first = mig_devices(read_state(gpu))[0].uuid
    assert find_share(env(gpu), "").device_uuid == first


@pytest.mark.parametrize("visible", ["MIG-00000000", "GPU-other", "1", ""])
def test_a_device_that_is_not_there_is_an_error(gpu: Path, visible: str) -> None:
    """A wrong or empty CUDA_VISIBLE_DEVICES hides the GPU."""
    with pytest.raises(NoDeviceError):
        find_share(env(gpu, CUDA_VISIBLE_DEVICES=visible), "")


def test_a_missing_state_is_an_error(tmp_path: Path) -> None:
    """A simulated driver that is gone is no device, and not silently another one."""
    with pytest.raises(NoDeviceError, match="no simulated GPU"):
        find_share({STATE_ENV: str(tmp_path / "gone")}, "a100-40")


def test_limits_only_tighten() -> None:
    """A client's limit is the least of the daemon's and its own."""
    assert Limits(50.0, 4).tightened(Limits(80.0, None)) == Limits(50.0, 4)
    assert Limits(None, None).tightened(Limits(20.0, 2)) == Limits(20.0, 2)


def test_client_limits_come_from_the_environment() -> None:
    """Limits are read as CUDA reads them; an invisible GPU drops all memory limits."""
    names = ("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT")
    read = {"0=1G": GIB, "GPU-x=512MB": GIB // 2, "0=1G,1=4G": None, "": None}
    for text, expected in read.items():
        limits = client_limits(dict(zip(names, ("25", text), strict=True)), ["GPU-x"])
        assert limits == Limits(25.0, expected)
    assert client_limits({names[0]: "200"}, []) == Limits(None, None)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("2G", "2G"), ("2048MB", "2G"), ("3072M", "3G"), ("1536M", "1G"), ("1.5G", "1M"),
     ("2X", "2M")],
)  # fmt: skip
def test_memory_values_are_read_as_the_real_daemon_reads_them(text: str, shown: str) -> None:
    """The observed values, the surprising ones included."""
    assert format_memory(parse_memory(text) or 0) == shown
