"""Policies at every place on the simulated GPU, and gateways that die, as a user sees it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import orjson
import pytest

from fairshare.processes.labelled import SLOT_LABEL, environment_of
from tests.workplace import Workplace

Wait = Callable[[Popen[str], str], str]
POLL_S = 0.05
# Both always have more in flight than the two places of the engine.
FLOOD = """\
name: flood
timing: {warmup_s: 0.5, window_s: 1.5, drain_s: 4}
tenants:
  - name: light
    arrival: {kind: closed, concurrency: 3}
    prompts: {kind: synthetic, tokens: {kind: fixed, tokens: 16}}
    output: {kind: fixed, tokens: 8}
  - name: heavy
    arrival: {kind: closed, concurrency: 21}
    prompts: {kind: synthetic, tokens: {kind: fixed, tokens: 16}}
    output: {kind: fixed, tokens: 8}
"""
SWEEP = ("--device", "virtual", "--engine-arg", "max_num_seqs=2", "--no-report")


@pytest.fixture
def flooded(workplace: Workplace) -> Workplace:
    """A workplace with one tenant that floods the other."""
    workplace.write("flood.yaml", FLOOD)
    return workplace


def test_a_policy_decides_wherever_it_is_put(flooded: Workplace) -> None:
    """In the gateway, in the engine and by ranks light gets its half; first come does not."""
    done = flooded.run(
        "matrix", "flood.yaml", "--modes", "logical", "--policies", "fcfs,vtc",
        "--scheduling", "engine,gateway,priority", "--output-dir", "out", *SWEEP,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "logical + vtc (engine)" in done.stdout
    shares = {slug: _share(flooded, slug, "light") for slug in flooded.cells("out")}
    own, gateway = shares["flood_logical_r1"], shares["flood_logical_fcfs_gateway_r1"]
    assert own < 0.25, shares
    assert gateway < 0.25, shares
    for place in ("engine", "gateway", "priority"):
        assert shares[f"flood_logical_vtc_{place}_r1"] > 0.35, shares
    for slug, cell in flooded.cells("out").items():
        decisions = cell.dir / "scheduling.jsonl"
        assert decisions.exists() is (slug != "flood_logical_r1")
        if decisions.exists():
            told = [orjson.loads(line) for line in decisions.read_bytes().splitlines()]
            assert told[0]["event"] == "started"
            admitted = {line["tenant"] for line in told if line["event"] == "admitted"}
            assert admitted == {"light", "heavy"}


def test_what_a_quota_refuses_is_told_apart(flooded: Workplace) -> None:
    """A refusal by the policy is a record of its own kind, and no failure of the cell."""
    done = flooded.run(
        "run", "flood.yaml", "--mode", "logical", "--policy", "rpm", "--policy-option",
        "rpm.limit=5", "--output-dir", "out", *SWEEP[:-1],
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    (slug,) = flooded.cells("out")
    assert slug == "flood_logical_rpm-limit-5_gateway_r1"
    errors = {record.error for record in flooded.records("out", slug)}
    assert errors == {None, "throttled"}
    again = flooded.run("run", "--rerun", slug, "--results", "out", "--output-dir", "again")
    assert again.returncode == 0, again.stdout
    assert set(flooded.cells("again")) == {slug}


def test_a_gateway_that_dies_fails_its_cell_alone(flooded: Workplace, wait_for: Wait) -> None:
    """The cell says how it ended; the next has a gateway of its own, on the same server."""
    run = flooded.start(
        "matrix", "flood.yaml", "--modes", "logical", "--policies", "fcfs,vtc", "--output-dir",
        "out", "--window", "4", *SWEEP,
    )  # fmt: skip
    wait_for(run, "ready after")
    os.kill(_gateway(flooded), signal.SIGKILL)
    rest = run.communicate(timeout=90)[0]
    assert run.returncode == 1, rest
    cells = flooded.cells("out")
    failed, fine = (cells[f"flood_logical_{name}_gateway_r1"].result for name in ("fcfs", "vtc"))
    assert failed.status == "failed"
    assert "the gateway was killed" in (failed.reason or "")
    assert fine.status == "ok"
    starts = orjson.loads((flooded.path / "out/matrix.json").read_bytes())["starts"]
    assert len(starts) == 1


def test_a_killed_run_leaves_no_gateway(flooded: Workplace, wait_for: Wait) -> None:
    """The reaper ends it like every other process of the run, and removes its settings."""
    run = flooded.start(
        "run", "flood.yaml", "--mode", "logical", "--policy", "vtc", "--output-dir", "out",
        "--window", "30", *SWEEP[:-1],
    )  # fmt: skip
    wait_for(run, "ready after")
    assert _gateway(flooded)
    run.kill()
    run.wait()
    while flooded.leftovers():  # the reaper needs a moment; the test's own limit ends the wait
        time.sleep(POLL_S)


def _share(place: Workplace, slug: str, tenant: str) -> float:
    served = [record.tenant for record in place.records("out", slug) if record.ok]
    return served.count(tenant) / len(served)


def _gateway(place: Workplace) -> int:
    """The pid of the gateway, as soon as it has written into its log that it listens."""
    while True:
        for entry in Path("/proc").iterdir():
            environ = environment_of(int(entry.name)) if entry.name.isdigit() else {}
            ours = environ.get("FAIRSHARE_STATE_DIR") == place.env["FAIRSHARE_STATE_DIR"]
            if ours and environ.get(SLOT_LABEL, "").startswith("gateway/"):
                logs = list(place.path.glob("out/cells/*/servers/gateway.log"))
                if any("port" in log.read_text() for log in logs):
                    return int(entry.name)
        time.sleep(POLL_S)
