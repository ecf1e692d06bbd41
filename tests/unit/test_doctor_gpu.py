"""What the GPU's facts mean for a run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fairshare.doctor import holders
from fairshare.doctor.gpu import GpuFacts, check
from tests.doctor_cases import GIB, gpu_facts, intent, told


def test_a_free_gpu_is_fine() -> None:
    """Nothing is said against a GPU in order."""
    assert set(told(check(gpu_facts(), intent())).values()) == {"ok"}


@pytest.mark.parametrize(
    ("condition", "modes", "name", "level"),
    [
        ({"compute_mode": "Prohibited"}, ("logical",), "compute mode", "fail"),
        ({"compute_mode": "Exclusive_Process"}, ("timeslice",), "compute mode", "fail"),
        ({"compute_mode": "Exclusive_Process"}, ("logical",), "compute mode", "warn"),
        ({"persistent": False}, (), "persistence", "warn"),
        ({"slowdowns": ("hot",)}, (), "clocks", "warn"),
        ({"used_bytes": 3 * GIB}, (), "gpu processes", "warn"),
    ],
)
def test_each_setting_has_its_line(
    condition: dict[str, Any], modes: tuple[str, ...], name: str, level: str
) -> None:
    """What matters to the modes asked for is told, with the command for this GPU."""
    found = list(check(gpu_facts(**condition), intent("cuda", *modes)))
    assert told(found)[name] == level
    (line,) = [finding for finding in found if finding.name == name]
    assert "nvidia-smi -i GPU-1" in (line.fix or "")


def test_others_on_the_gpu_refuse_the_run_unless_accepted() -> None:
    """The pids are named; leave to share makes it a reservation."""
    facts = replace(gpu_facts("h200", 42, 43), names={42: "python3"})
    (line,) = [f for f in check(facts, intent()) if f.name == "gpu processes"]
    assert line.level == "fail"
    assert "pid 42 (python3, 3 GiB), pid 43 (not visible here, 3 GiB)" in line.says
    assert told(check(facts, intent(allow_foreign=True)))["gpu processes"] == "warn"


def test_servers_of_ours_are_mended_by_clean() -> None:
    """What a run of fairshare has left is not blamed on others."""
    facts = replace(gpu_facts("h200", 42), ours=frozenset({42}))
    (line,) = [f for f in check(facts, intent()) if f.name == "gpu processes"]
    assert (line.fix or "").startswith("fairshare clean")


def test_without_a_gpu_the_reason_is_told_once() -> None:
    """No driver is one failure, with another device as the way out."""
    found = told(
        check(GpuFacts(nvml="no driver", smi="not found", smi_found=False), intent(device=None))
    )
    assert found == {"nvidia-smi": "warn", "gpu": "fail"}


def test_a_desktop_on_the_gpu_is_a_reservation() -> None:
    """It draws while we measure; daemons that only watch do not."""
    facts = holders.HolderFacts({7: "Xorg", 8: "nv-hostengine"})
    assert told(holders.check(facts, changes_mode=False)) == {
        "desktop": "warn",
        "device files": "ok",
    }


def test_holders_stand_against_a_reset_and_are_ended_by_name() -> None:
    """Before MIG mode is switched with a reset, each daemon's own command ends it."""
    watchers = {8: "nv-hostengine", 9: "nvidia-persiste", 10: "python3"}
    (line,) = holders.check(holders.HolderFacts(watchers), changes_mode=True)
    assert line.level == "fail"
    assert line.fix == (
        "sudo systemctl stop nvidia-dcgm; sudo systemctl stop nvidia-persistenced; sudo kill 10"
    )
