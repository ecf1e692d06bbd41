"""What MPS on this machine means for a run."""

from __future__ import annotations

from dataclasses import replace

from fairshare.doctor.mps import MpsFacts, check
from tests.doctor_cases import gpu_facts, intent, told


def test_a_daemon_of_others_stands_against_every_mode() -> None:
    """It would take servers in that are to run without MPS."""
    facts = MpsFacts(foreign="somebody else's MPS runs", remedy="let its owner stop it")
    assert told(check(facts, gpu_facts(), intent("cuda", "logical"), daemon=False)) == {
        "mps daemons": "fail"
    }


def test_the_control_program_is_needed_by_mps_alone() -> None:
    """Whoever runs no daemon is not told about the program."""
    facts = MpsFacts(control="not found")
    wanted = intent("cuda")
    assert told(check(facts, gpu_facts(), wanted, daemon=True))["mps control"] == "fail"
    assert "mps control" not in told(check(facts, gpu_facts(), wanted, daemon=False))


def test_what_newer_drivers_have_is_told() -> None:
    """From R590 on there are static SM partitions, from R615 on protocol 3."""
    for driver, there, lacking in [
        ("580.1", "answers", "R590"),
        ("590.1", "R590", "R615"),
        ("615.71", "R615", "R999"),
    ]:
        gpu = gpu_facts()
        assert gpu.gpu is not None
        facts = replace(gpu, gpu=replace(gpu.gpu, driver=driver))
        found = check(MpsFacts(), facts, intent("cuda", "mps"), daemon=True)
        (line,) = [finding for finding in found if finding.name == "mps control"]
        assert there in line.says
        assert lacking not in line.says


def test_a_pipe_in_our_environment_is_a_reservation() -> None:
    """Somebody may believe that it has an effect on our servers."""
    found = told(check(MpsFacts(pipe="/x"), gpu_facts(), intent("cuda"), daemon=False))
    assert found == {"mps daemons": "ok", "mps pipe": "warn"}
