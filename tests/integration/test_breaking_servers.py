"""Servers that fail in ways that no exit code tells."""

from __future__ import annotations

from pathlib import Path

from fairshare.processes.labelled import environment_of
from fairshare.records import CellStatus
from tests.workplace import Workplace

RUN = ("matrix", "brief.yaml", "--device", "virtual", "--output-dir", "out", "--no-report")


def _servers(workplace: Workplace) -> list[int]:
    """Processes that carry a label of a run of this workplace."""
    state = workplace.env["FAIRSHARE_STATE_DIR"]
    found = []
    for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
        environment = environment_of(pid)
        if environment.get("FAIRSHARE_STATE_DIR") == state and "FAIRSHARE_RUN" in environment:
            found.append(pid)
    return found


def test_a_server_that_hangs_is_found_out_and_started_again(workplace: Workplace) -> None:
    """Its /health says 200, so only a request that it should answer at once can tell.

    Nothing is left of it, not even the child that it leaks and that ends on no SIGTERM.
    """
    gpu = workplace.path / "gpu"
    gpu.mkdir()
    (gpu / "fail").write_text("server_hangs_after=20:1, server_leaks_child:1")
    workplace.env["FAIRSHARE_VIRTUAL_GPU"] = str(gpu)
    done = workplace.run(
        *RUN, "--modes", "logical", "--concurrency", "1,2", "--window", "1s", "--drain", "0.5s"
    )
    assert done.returncode == 1, done.stdout
    assert _servers(workplace) == []
    results = {c.result.key.concurrency: c.result for c in workplace.cells("out").values()}
    assert results[1].status is CellStatus.FAILED
    assert results[1].reason is not None
    assert "server all hangs" in results[1].reason
    assert results[2].status is CellStatus.OK
