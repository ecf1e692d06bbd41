"""The stand-in nvidia-smi: NVIDIA's formats, exit codes and ways of failing."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest

from fairshare.virtual import nvidia_smi
from fairshare.virtual.driver import install
from fairshare.virtual.failing import FAIL_ENV
from fairshare.virtual.processes import start_ticks
from fairshare.virtual.state import STATE_ENV, mig_devices, read_state

Smi = Callable[..., tuple[int, list[str]]]
# Written for real outputs of several drivers, not for this stand-in.
LGIP = re.compile(
    r"^\|\s+(\d+)\s+MIG\s+(\d+g\.\d+gb(?:[+-][\w.]+)?)\s+(\d+)\s+(\d+)/(\d+)\s+([\d.]+)\s+(\S+)"
    r"\s+(\d+)\s+(\d+)\s+(\d+)\s*\|$"
)
LGI = re.compile(r"^\|\s+(\d+)\s+MIG\s+(\S+)\s+(\d+)\s+(\d+)\s+(\d+):(\d+)\s*\|$")
LCI = re.compile(r"^\|\s+(\d+)\s+(\d+)\s+MIG\s+(\S+)\s+(\d+)\*?\s+(\d+)(?:\s+(\d+):(\d+))?\s*\|$")


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A simulated A100-40."""
    install(tmp_path, "a100-40")
    monkeypatch.setenv(STATE_ENV, str(tmp_path))
    return tmp_path


@pytest.fixture
def smi(gpu: Path, capsys: pytest.CaptureFixture[str]) -> Smi:
    """Runs the stand-in; exit status and lines of output."""

    def run(*arguments: str) -> tuple[int, list[str]]:
        status = nvidia_smi.main(list(arguments))
        return int(status), capsys.readouterr().out.splitlines()

    return run


def occupy(gpu: Path, device_uuid: str) -> dict[str, object]:
    """Make the driver believe that a live server (this process) uses a device."""
    report = {
        "pid": os.getpid(),
        "start_ticks": start_ticks(os.getpid()),
        "model": "m",
        "used_bytes": 3 * 1024**3,
        "device_uuid": device_uuid,
    }
    (gpu / "servers" / "1.json").write_text(json.dumps(report))
    return report


def test_snapshot_query_has_nvidias_form(gpu: Path, smi: Smi) -> None:
    """The query that takes the snapshot answers in one line, field by field."""
    fields = "index,uuid,name,mig.mode.current,mig.mode.pending,compute_mode,persistence_mode"
    status, lines = smi(f"--query-gpu={fields}", "--format=csv,noheader")
    uuid = read_state(gpu)["gpu"]["uuid"]
    assert status == 0
    assert lines == [f"0, {uuid}, NVIDIA A100-SXM4-40GB, Disabled, Disabled, Default, Enabled"]


def test_query_forms_and_errors(smi: Smi) -> None:
    """Header, units and their absence; unknown fields, formats and devices are refused."""
    assert smi("--query-gpu=memory.total", "--format=csv")[1] == ["memory.total [MiB]", "40960 MiB"]
    assert smi("--query-gpu", "memory.total", "--format=csv,noheader,nounits")[1] == ["40960"]
    assert smi("--query-gpu=colour", "--format=csv")[0] == 2
    assert smi("--query-gpu=name")[0] == 2
    assert smi("-i", "7", "-L") == (6, ["No devices were found"])
    assert smi("--frobnicate")[0] == 2


def test_list_names_gpu_and_instances(gpu: Path, smi: Smi) -> None:
    """``-L`` lists the GPU and each MIG device in the real layout."""
    smi("-i", "0", "-mig", "1")
    smi("mig", "-i", "0", "-cgi", "9,19", "-C")
    lines = smi("-L")[1]
    state = read_state(gpu)
    assert lines[0] == f"GPU 0: NVIDIA A100-SXM4-40GB (UUID: {state['gpu']['uuid']})"
    found = re.findall(r"^  MIG (\S+) +Device +(\d+): \(UUID: (MIG-\S+)\)$", "\n".join(lines), re.M)
    assert found == [(d.profile["name"], str(d.index), d.uuid) for d in mig_devices(state)]
    assert [name for name, _, _ in found] == ["3g.20gb", "1g.5gb"]
    assert lines[1].startswith("  MIG 3g.20gb     Device  0: (UUID: MIG-")


def test_profile_table_is_nvidias(smi: Smi) -> None:
    """``-lgip`` has the published numbers of an A100-40, in a table of the right width."""
    status, lines = smi("mig", "-i", "0", "-lgip")
    rows = [match.groups() for match in map(LGIP.match, lines) if match]
    assert status == 0
    assert {len(line) for line in lines} == {81}
    assert rows[0] == ("0", "1g.5gb", "19", "7", "7", "4.75", "No", "14", "0", "0")
    assert rows[4] == ("0", "3g.20gb", "9", "2", "2", "19.50", "No", "42", "2", "0")
    assert rows[6] == ("0", "7g.40gb", "0", "1", "1", "39.25", "No", "98", "5", "0")
    assert "GPU  0 Profile ID 14 Placements: {0,2,4}:2" in smi("mig", "-lgipp")[1]
    assert "GPU  0 Profile ID  0 Placement : {0}:8" in smi("mig", "-lgipp")[1]


def test_creating_two_halves_reads_as_in_nvidias_guide(smi: Smi) -> None:
    """``-cgi 9,3g.20gb -C`` prints the documented four lines, and both listings show them."""
    assert smi("-i", "0", "-mig", "1")[1] == [
        "Enabled MIG Mode for GPU 00000000:07:00.0",
        "All done.",
    ]
    status, lines = smi("mig", "-cgi", "9,3g.20gb", "-C")
    created = "Successfully created"
    assert status == 0
    assert lines == [
        f"{created} GPU instance ID  2 on GPU  0 using profile MIG 3g.20gb (ID  9)",
        f"{created} compute instance ID  0 on GPU  0 GPU instance ID  2 using profile "
        "MIG 3g.20gb (ID  2)",
        f"{created} GPU instance ID  1 on GPU  0 using profile MIG 3g.20gb (ID  9)",
        f"{created} compute instance ID  0 on GPU  0 GPU instance ID  1 using profile "
        "MIG 3g.20gb (ID  2)",
    ]
    gis = smi("mig", "-lgi")[1]
    cis = smi("mig", "-lci")[1]
    assert {len(line) for line in gis} == {59}
    assert {len(line) for line in cis} == {70}
    assert [m.groups()[1:] for m in map(LGI.match, gis) if m] == [
        ("3g.20gb", "9", "1", "0", "4"),
        ("3g.20gb", "9", "2", "4", "4"),
    ]
    assert [m.groups()[1:5] for m in map(LCI.match, cis) if m] == [
        ("1", "3g.20gb", "2", "0"),
        ("2", "3g.20gb", "2", "0"),
    ]


def test_what_does_not_fit_leaves_the_rest_behind(gpu: Path, smi: Smi) -> None:
    """The documented partial failure: three instances exist after ``-cgi 19,19,14,9`` failed."""
    smi("-mig", "1")
    status, lines = smi("mig", "-cgi", "19,19,14,9")
    assert status == 23
    assert lines[-2:] == [
        "Unable to create a GPU instance on GPU  0 using profile 9: Insufficient Resources",
        "Failed to create GPU instances: Insufficient Resources",
    ]
    assert [i["gi"] for i in read_state(gpu)["instances"]] == [13, 11, 3]


@pytest.mark.parametrize(
    ("profiles", "fits"),
    [
        ("9,5", True), ("5,14,19", True), ("9,14,19,19", True), ("14,14,14,19", True),
        ("14,19,19,19,19,19", True), ("19,19,19,19,19,19,19", True), ("15,15,15,15", True),
        ("0", True), ("9,9,19", False), ("5,5", False), ("20,20", False), ("0,19", False),
    ],
)  # fmt: skip
def test_only_valid_layouts_can_be_made(smi: Smi, profiles: str, fits: bool) -> None:
    """Instances never overlap in memory slices, and each documented layout can be made."""
    smi("-mig", "1")
    assert smi("mig", "-cgi", profiles)[0] == (0 if fits else 23)


def test_placements_are_respected(gpu: Path, smi: Smi) -> None:
    """``id:start`` puts an instance there or nowhere."""
    smi("-mig", "1")
    assert smi("mig", "-cgi", "19:2,14:4")[0] == 0
    assert [i["start"] for i in read_state(gpu)["instances"]] == [2, 4]
    assert smi("mig", "-cgi", "19:2")[0] == 23
    assert smi("mig", "-cgi", "14:1")[0] == 23
    assert smi("mig", "-cgi", "99")[0] == 2


def test_instances_are_destroyed_inside_out(smi: Smi) -> None:
    """A GPU instance with a compute instance is in use; the two commands in order empty the GPU."""
    smi("-mig", "1")
    smi("mig", "-cgi", "9,9", "-C")
    status, lines = smi("mig", "-dgi")
    assert status == 19
    assert lines[-1] == "Failed to destroy GPU instances: In use by another client"
    assert smi("mig", "-dci", "-gi", "1", "-ci", "0") == (
        0,
        ["Successfully destroyed compute instance ID  0 from GPU  0 GPU instance ID  1"],
    )
    assert smi("mig", "-dgi", "-gi", "1") == (
        0,
        ["Successfully destroyed GPU instance ID  1 from GPU  0"],
    )
    assert (smi("mig", "-dci")[0], smi("mig", "-dgi")[0]) == (0, 0)
    assert smi("mig", "-dci") == (6, ["No compute instances found: Not Found"])
    assert smi("mig", "-lgi") == (6, ["No GPU instances found: Not Found"])


def test_a_used_instance_cannot_be_destroyed(gpu: Path, smi: Smi) -> None:
    """As long as a live server runs on it, a compute instance stays."""
    smi("-mig", "1")
    smi("mig", "-cgi", "9", "-C")
    occupy(gpu, mig_devices(read_state(gpu))[0].uuid)
    status, lines = smi("mig", "-dci")
    assert status == 19
    assert lines[-1] == "Failed to destroy compute instances: In use by another client"
    query = smi("--query-compute-apps=pid,used_memory", "--format=csv,noheader")
    assert query == (0, [f"{os.getpid()}, 3072 MiB"])
    assert smi("--query-gpu=memory.used", "--format=csv,noheader")[1] == ["3072 MiB"]


def test_a_mode_change_on_a_used_gpu_is_only_pending(gpu: Path, smi: Smi) -> None:
    """It says "All done." and exits 0, yet current and pending differ; a reset applies it."""
    occupy(gpu, read_state(gpu)["gpu"]["uuid"])
    status, lines = smi("-i", "0", "-mig", "1")
    assert (status, lines[-1]) == (0, "All done.")
    assert lines[0].endswith("is in pending enable state for GPU 00000000:07:00.0:"
                             "In use by another client")  # fmt: skip
    mode = ["--query-gpu=mig.mode.current,mig.mode.pending", "--format=csv,noheader"]
    assert smi(*mode)[1] == ["Disabled, Enabled"]
    assert smi("mig", "-lgi") == (6, ["No MIG-enabled devices found."])
    assert smi("--gpu-reset", "-i", "0")[0] == 255
    (gpu / "servers" / "1.json").unlink()
    assert smi("--gpu-reset", "-i", "0")[0] == 0
    assert smi(*mode)[1] == ["Enabled, Enabled"]


def test_without_a_driver_every_command_fails(smi: Smi, monkeypatch: pytest.MonkeyPatch) -> None:
    """With NVIDIA's words and status 9."""
    monkeypatch.setenv(FAIL_ENV, "driver_missing")
    status, lines = smi("mig", "-lgip")
    assert status == 9
    assert "couldn't communicate with the NVIDIA driver" in lines[0]


def test_a_gpu_without_mig_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An L4 has no MIG mode to read or set."""
    install(tmp_path, "l4")
    monkeypatch.setenv(STATE_ENV, str(tmp_path))
    query = ["--query-gpu=mig.mode.current", "--format=csv,noheader"]
    assert [nvidia_smi.main(a) for a in (["-mig", "1"], ["mig", "-lgip"], query)] == [3, 6, 0]
    assert capsys.readouterr().out.splitlines() == [
        "Unable to enable MIG Mode for GPU 00000000:07:00.0: Not Supported",
        "No MIG-supported devices found.",
        "[N/A]",
    ]


def test_compute_mode_can_be_set_but_not_under_mig(smi: Smi) -> None:
    """EXCLUSIVE_PROCESS is remembered; on a MIG-enabled GPU it is a warning with status 0."""
    query = ["--query-gpu=compute_mode", "--format=csv,noheader"]
    assert smi("-i", "0", "-c", "EXCLUSIVE_PROCESS")[0] == 0
    assert smi(*query)[1] == ["Exclusive_Process"]
    smi("-c", "0")
    smi("-mig", "1")
    status, lines = smi("-c", "3")
    assert status == 0
    assert lines[0] == (
        "Setting compute mode to EXCLUSIVE_PROCESS is not supported on a MIG-enabled device."
    )
    assert smi(*query)[1] == ["Default"]


def test_switching_the_mode_resets_an_ampere_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On an A100 the change resets the GPU and its compute mode with it, on an H200 not."""
    monkeypatch.setenv(STATE_ENV, str(tmp_path))
    for name, left in (("a100-40", "Default"), ("h200", "Prohibited")):
        install(tmp_path, name)
        assert nvidia_smi.main(["-c", "PROHIBITED"]) == 0
        assert nvidia_smi.main(["-mig", "1"]) == 0
        assert read_state(tmp_path)["mig_mode"]["current"] == "Enabled"
        assert read_state(tmp_path)["compute_mode"] == left


def test_time_slices_can_be_listed_and_set(smi: Smi) -> None:
    """By number or name, with NVIDIA's words; not on a GPU in MIG mode."""
    assert smi("compute-policy", "--set-timeslice", "3", "-i", "0") == (
        0,
        ["Successfully set timeslice policy with value LONG for GPU 0"],
    )
    assert smi("compute-policy", "--list")[1] == [
        "+-------------------------------------+",
        "| GPU compute policies:               |",
        "| GPU     Name           Value        |",
        "|=====================================|",
        "|   0     timeslice      LONG         |",
        "+-------------------------------------+",
    ]
    assert smi("compute-policy", "--set-timeslice=default")[0] == 0
    assert "DEFAULT" in smi("compute-policy", "-l")[1][4]
    assert smi("compute-policy", "--set-timeslice", "9")[0] == 2
    assert smi("compute-policy", "-l", "--set-timeslice", "1")[0] == 2
    smi("-mig", "1")
    assert smi("compute-policy", "--set-timeslice", "1")[0] == 3


def test_clocks_can_be_locked_and_let_go(gpu: Path, smi: Smi) -> None:
    """One value or two, in either spelling; a reset of clocks that are not locked is none."""
    said = 'GPU clocks set to "(gpuClkMin 1200, gpuClkMax 1410)" for GPU 00000000:07:00.0'
    assert smi("-i", "0", "--lock-gpu-clocks=1200,1410") == (0, [said, "All done."])
    assert read_state(gpu)["locked_clocks"] == [1200, 1410]
    assert smi("-lgc", "fast")[0] == 2
    for _ in range(2):
        assert smi("-i", "0", "--reset-gpu-clocks")[0] == 0
        assert "locked_clocks" not in read_state(gpu)


def test_persistence_mode_can_be_set(smi: Smi) -> None:
    """And says so when it is so already."""
    query = ["--query-gpu=persistence_mode", "--format=csv,noheader"]
    assert smi("-pm", "0")[1][0] == "Disabled persistence mode for GPU 00000000:07:00.0."
    assert smi(*query)[1] == ["Disabled"]
    assert "already Disabled" in smi("-pm", "0")[1][0]


def test_media_engines_run_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who takes all of them leaves room for instances without any, and for no other."""
    monkeypatch.setenv(STATE_ENV, str(tmp_path))
    install(tmp_path, "rtx-pro-6000")
    for command, status in (
        ("-mig 1", 0),
        ("mig -cgi 1g.24gb+me.all", 0),
        ("mig -cgi 1g.24gb", 23),
        ("mig -cgi 1g.24gb-me", 0),
        ("mig -cgi 2g.48gb-me", 0),
        ("mig -cgi 1g.24gb-me", 23),
    ):
        assert nvidia_smi.main(command.split()) == status, command
    assert "GPU instance ID  6" in capsys.readouterr().out


def test_the_plain_table_shows_devices_and_processes(gpu: Path, smi: Smi) -> None:
    """In the layout of drivers since R550: MIG devices, and whether a process uses MPS."""
    report = occupy(gpu, read_state(gpu)["gpu"]["uuid"])
    (gpu / "servers" / "1.json").write_text(json.dumps({**report, "sharing": "mps"}))
    lines = smi()[1]
    assert lines[8] == (
        "|   0  NVIDIA A100-SXM4-40GB          On  |   00000000:07:00.0 Off |"
        "                    0 |"
    )
    assert lines[9].startswith(
        "| N/A   N/A    P0            N/A  /  N/A  |    3072MiB /  40960MiB |"
    )
    assert lines[-2] == (
        f"|    0   N/A  N/A{os.getpid():>16}    M+C   fairshare.virtual.server --model m   "
        "  3072MiB |"
    )
    assert {len(line) for line in lines[1:] if line} == {91}
    (gpu / "servers" / "1.json").unlink()
    smi("-mig", "1")
    assert "|  No MIG devices found                      " in "\n".join(smi()[1])
    smi("mig", "-cgi", "5", "-C")
    occupy(gpu, mig_devices(read_state(gpu))[0].uuid)
    lines = smi()[1]
    assert "| GPU  GI  CI  MIG |              Shared Memory-Usage |" in "\n".join(lines)
    assert (
        "|  0    1   0   0  |            3072MiB / 19968MiB    | 56      0 |"
        "  4   0    2    0    0 |"
    ) in lines
    assert "|                  |               0MiB / 32767MiB    |" in "\n".join(lines)
    assert lines[-2].startswith(f"|    0    1    0{os.getpid():>17}      C   fairshare.virtual")
    assert {len(line) for line in lines[1:] if line} == {91}


def test_the_xml_maps_devices_to_instances(gpu: Path, smi: Smi) -> None:
    """``-q -x`` tells which instance each MIG device is, which ``-L`` does not."""
    smi("-mig", "1")
    smi("mig", "-cgi", "9,14", "-C")
    root = Xml.fromstring("\n".join(smi("-q", "-x")[1]))  # noqa: S314 - ours
    found = [
        tuple(int(node.findtext(name) or -1) for name in
              ("index", "gpu_instance_id", "compute_instance_id"))
        for node in root.iter("mig_device")
    ]  # fmt: skip
    assert found == [(d.index, d.gi, d.ci) for d in mig_devices(read_state(gpu))]
    assert root.findtext("gpu/mig_mode/current_mig") == "Enabled"
