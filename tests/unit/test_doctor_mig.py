"""What MIG's state means for a run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fairshare.doctor.mig import MigFacts, check, gather, switches_by_reset
from fairshare.doctor.mps import needs_daemon
from fairshare.sharing.nvidia_smi import GpuInstance
from fairshare.sharing.options import SharingOptions
from fairshare.spec.layouts import MigHow
from fairshare.spec.mig import MigSpec
from tests.doctor_cases import gpu_facts, intent, told

REAL = MigFacts(real=True)
EMULATED = MigFacts(why="It is not real, because it may not be")
ON = ("Enabled", "Enabled")
PENDING = ("Disabled", "Enabled")


@pytest.mark.parametrize(
    ("facts", "mode", "modes", "level"),
    [
        (REAL, ON, ("mig",), "ok"),
        (REAL, ON, ("mig", "logical"), "fail"),
        (EMULATED, ON, ("mig",), "fail"),
        (EMULATED, ("Disabled", "Disabled"), ("mig", "logical"), "ok"),
        (REAL, PENDING, ("mig",), "fail"),
        (REAL, PENDING, ("logical",), "fail"),
    ],
)
def test_the_mode_must_fit_what_is_run(
    facts: MigFacts, mode: tuple[str, str], modes: tuple[str, ...], level: str
) -> None:
    """MIG mode must be what it will be after a reset, and off where the whole GPU is needed."""
    assert told(check(facts, gpu_facts(mig=mode), intent("cuda", *modes)))["mig mode"] == level


def test_a_pending_mode_is_mended_by_what_it_is_now() -> None:
    """The command asks again for the mode in force, so that nothing waits for a reset."""
    for mode, digit in ((PENDING, "0"), (PENDING[::-1], "1")):
        (line,) = [
            f
            for f in check(REAL, gpu_facts(mig=mode), intent("cuda", "mig"))
            if f.name == "mig mode"
        ]
        assert line.fix == f"sudo nvidia-smi -i GPU-1 -mig {digit}"


def test_instances_of_others_are_told() -> None:
    """They are never touched, so they take room; how to be rid of them is told."""
    facts = replace(REAL, instances=(GpuInstance(2, "3g.71gb", 9, 0, 4),))
    (line,) = [
        f
        for f in check(facts, gpu_facts(mig=ON), intent("cuda", "mig"))
        if f.name == "mig instances"
    ]
    assert "3g.71gb (id 2)" in line.says
    assert "mig -i GPU-1 -dci && sudo nvidia-smi mig -i GPU-1 -dgi" in (line.fix or "")


def test_instances_that_cannot_be_listed_matter_to_real_mig_alone() -> None:
    """Whoever only emulates needs no rights to list them."""
    facts = replace(REAL, unread="Insufficient Permissions")
    assert told(check(facts, gpu_facts(), intent("cuda", "mig")))["mig instances"] == "fail"
    assert "mig instances" not in told(check(facts, gpu_facts(), intent("cuda", "logical")))


def test_the_driver_must_know_mig_on_this_model() -> None:
    """Each model has its first driver."""
    old = gpu_facts()
    assert old.gpu is not None
    old = replace(old, gpu=replace(old.gpu, driver="535.1"))
    assert told(check(REAL, old, intent("cuda", "mig")))["mig driver"] == "fail"
    assert told(check(REAL, gpu_facts(), intent("cuda", "mig")))["mig driver"] == "ok"


def test_only_ampere_resets_for_mig_mode() -> None:
    """There, whoever holds the device stands in the way."""
    wanted = intent("cuda", "mig")
    assert switches_by_reset(REAL, gpu_facts("a100"), wanted)
    assert not switches_by_reset(REAL, gpu_facts("h200"), wanted)
    assert not switches_by_reset(EMULATED, gpu_facts("a100"), wanted)
    assert not switches_by_reset(REAL, gpu_facts("a100", mig=ON), wanted)


def test_what_mode_mig_will_be_is_chosen_as_a_run_does() -> None:
    """Without leave to change the GPU it is emulated, or refused where that will not do."""
    found = gather(intent("cuda", "mig"))
    assert not found.real
    assert "may not be changed" in found.why
    assert needs_daemon(found, intent("cuda", "mig"))
    insisting = SharingOptions(mig=MigSpec(how=MigHow.REAL))
    refused = gather(intent("cuda", "mig", sharing=insisting))
    assert told(check(refused, gpu_facts(), intent("cuda", "mig")))["mig"] == "fail"


def test_a_gpu_without_mig_is_no_failure() -> None:
    """Mode mig is emulated there; other modes hear nothing of MIG."""
    plain = gpu_facts("l4")
    assert told(check(EMULATED, plain, intent("cuda", "mig", product="l4"))) == {"mig": "ok"}
    assert told(check(EMULATED, plain, intent("cuda", "logical", product="l4"))) == {}
