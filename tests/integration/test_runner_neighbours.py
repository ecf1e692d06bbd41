"""Another's server on the GPU of a run: refused at the start, or carried by every figure."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fairshare.errors import ExitCode
from fairshare.processes.ports import free_port
from fairshare.records import CellStatus, Mark
from tests.workplace import Workplace, cache_dir, workplace

__all__ = ["cache_dir", "workplace"]
GPU = "a100-40"


@contextmanager
def another_server(place: Workplace) -> Iterator[int]:
    """A small server that somebody else runs on the same simulated GPU; yields its pid."""
    command = [
        *(sys.executable, "-m", "fairshare", "serve-virtual", "--model", "qwen3-0.6b"),
        *("--port", str(free_port()), "--gpu-memory-utilization", "0.08", "--max-model-len", "512"),
    ]
    with subprocess.Popen(
        command, cwd=place.path, env=place.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as server:
        try:
            assert server.stdout is not None
            assert any(b"serving qwen3" in line for line in server.stdout)
            yield server.pid
        finally:
            server.terminate()


def test_another_on_the_gpu_is_refused_or_marked(workplace: Workplace) -> None:
    """Without leave the run ends before it starts and names the other; with it, figures do."""
    run = ("run", "brief.yaml", "--mode", "mps", "--device", f"virtual:{GPU}", "--output-dir")
    assert workplace.run(*run, "alone").returncode == 0
    alone = workplace.cells("alone")["brief_mps_c1_r1"].result
    assert Mark.CONTAMINATED not in alone.marks
    gpu = workplace.path / "state" / "virtual" / GPU
    workplace.env["FAIRSHARE_VIRTUAL_GPU"] = str(gpu)
    with another_server(workplace) as pid:
        refused = workplace.run(*run, "refused")
        assert refused.returncode == ExitCode.PREFLIGHT_FAILED, refused.stdout
        assert f"pid {pid}" in refused.stdout
        assert "--allow-foreign" in refused.stdout
        assert not (workplace.path / "refused").exists()
        accepted = workplace.run(*run, "accepted", "--allow-foreign")
    assert accepted.returncode == 0, accepted.stdout
    (cell,) = workplace.cells("accepted").values()
    assert cell.result.status is CellStatus.OK
    assert Mark.CONTAMINATED in cell.result.marks
    assert f"pid {pid} (python" in (cell.result.reason or "")
    assert "contaminated: mps" in accepted.stdout
    page = (workplace.path / "accepted/analysis/report.html").read_text("utf-8")
    assert "contaminated" in page
    assert f"pid {pid}" in page
