"""The doctor as a person or a program meets it, and as a run is refused by it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import orjson
import pytest

from fairshare.virtual.driver import install
from tests.workplace import Workplace


@pytest.fixture(name="smi")
def _smi(workplace: Workplace) -> str:
    """A simulated H200 that has been made; its nvidia-smi."""
    gpu = workplace.path / "gpu"
    workplace.env.update(install(gpu, "h200"))
    return str(gpu / "bin" / "nvidia-smi")


def _change(smi: str, *arguments: str) -> None:
    subprocess.run([smi, "-i", "0", *arguments], check=True, capture_output=True)


def test_a_machine_in_order_is_ready(workplace: Workplace, smi: str) -> None:
    """Exit code 0, no failure, and the same for programs as JSON."""
    assert smi
    told = workplace.run("doctor", "--device", "virtual:h200")
    assert told.returncode == 0, told.stdout
    assert "0 fail" in told.stdout
    found = workplace.run("doctor", "--device", "virtual:h200", "--json")
    document = orjson.loads(found.stdout)
    assert document["format_version"] == 1
    assert document["level"] != "fail"
    assert {"name", "level", "says", "fix"} == set(document["findings"][0])
    names = {finding["name"] for finding in document["findings"]}
    assert {"gpu", "gpu processes", "compute mode", "mig mode", "mps control"} <= names


def test_a_run_is_refused_for_what_the_doctor_finds_and_goes_on_once_mended(
    workplace: Workplace, smi: str
) -> None:
    """Exit code 3 before anything is started or made; the command that is told mends it."""
    _change(smi, "-c", "EXCLUSIVE_PROCESS")
    asked = ("--device", "virtual:h200", "--modes", "timeslice")
    told = workplace.run("doctor", *asked)
    assert told.returncode == 3
    command = f"{smi} -i 0 -c DEFAULT"
    assert command in told.stdout
    run = ("matrix", "brief.yaml", *asked, "--output-dir", "out", "--no-report")
    refused = workplace.run(*run)
    assert refused.returncode == 3, refused.stdout
    assert command in refused.stdout
    assert not (workplace.path / "out").exists()
    subprocess.run(command.split(), check=True, capture_output=True)
    done = workplace.run(*run)
    assert done.returncode == 0, done.stdout
    events = (workplace.path / "out" / "events.jsonl").read_text().splitlines()
    assert "memory.returned" in [orjson.loads(line)["event"] for line in events]


def test_without_tools_and_drivers_there_are_findings(workplace: Workplace) -> None:
    """A machine that has nothing gets reasons and remedies, never a traceback."""
    workplace.env["PATH"] = "/nowhere"
    told = workplace.run("doctor", "--device", "cuda", "--modes", "mps,mig")
    assert told.returncode == 3
    assert "Traceback" not in told.stdout
    for name in ("nvidia-smi", "gpu", "mps control"):
        assert f"\nfail {name} " in told.stdout or f"\nwarn {name} " in told.stdout, told.stdout


def test_looking_changes_nothing(workplace: Workplace) -> None:
    """No folder, no file and no simulated GPU is made by a look."""
    before = sorted(path for path in workplace.path.rglob("*"))
    for device in ("virtual", "cpu", "cuda"):
        workplace.run("doctor", "--device", device)
    assert sorted(path for path in workplace.path.rglob("*")) == before


@pytest.mark.parametrize("arguments", [("--device", "moon"), ("--modes", "x"), ("--gpu", "")])
def test_wrong_flags_are_bad_input(workplace: Workplace, arguments: tuple[str, ...]) -> None:
    """What the user wrote wrongly is exit code 2, not a finding about the machine."""
    assert workplace.run("doctor", *arguments).returncode == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_stranger_gets_findings(workplace: Workplace) -> None:
    """Folders that are not ours to write to are told, each with another way."""
    place = Path(workplace.env["FAIRSHARE_STATE_DIR"])
    place.mkdir(mode=0o755)
    command = ["setpriv", "--reuid=65534", "--clear-groups", *workplace.command("doctor")]
    told = subprocess.run(
        [*command, "--device", "virtual"],
        env=workplace.env,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "Permission denied" in told.stderr:
        pytest.skip("this installation is readable by root alone")
    assert told.returncode == 3, told.stdout + told.stderr
    assert "fail state folder" in told.stdout
    assert "fail disk" in told.stdout
