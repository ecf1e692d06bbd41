"""Whatever is wrong ends in one clear message and the right exit code, and leaves nothing behind.

The workplace fixture looks for leftover processes, folders and journals after each test.
"""

from __future__ import annotations

import socket

import pytest

from fairshare.processes.ports import free_port
from tests.workplace import Workplace

# What the user typed wrong -> what must be in the one message.
WRONG_FLAGS = [
    (["matrix", "two-tenant"], "did you mean two-tenants?"),
    (["matrix", "./nowhere.yaml"], "does not exist"),
    (["matrix", "brief.yaml", "--modes", "logical,mgi"], "'mgi' is not one of"),
    (["matrix", "brief.yaml", "--concurrency", "0"], "0 is not in the range"),
    (["matrix", "brief.yaml", "--concurrency", "1,,4"], "has an empty part"),
    (["matrix", "brief.yaml", "--concurrency", "4,4"], "names something twice"),
    (["matrix", "brief.yaml", "--window", "soon"], "is not a duration"),
    (["matrix", "brief.yaml", "--window", "0"], "window_s"),
    (["matrix", "brief.yaml", "--device", "tpu"], "there is no device 'tpu'"),
    (["matrix", "brief.yaml", "--device", "virtual:h9000"], "h9000"),
    (["matrix", "brief.yaml", "--device", "virtual", "--model", "gpt-17"], "gpt-17"),
    (["matrix", "brief.yaml", "--device", "cpu", "--model", "/no/model"], "/no/model"),
    (["matrix", "brief.yaml", "--launcher", "vlm"], "did you mean vllm?"),
    (["matrix", "brief.yaml", "--engine-arg", "max_model_len"], "NAME=VALUE"),
    (["matrix", "brief.yaml", "--matrix", "overnigt"], "did you mean overnight?"),
    (
        ["matrix", "brief.yaml", "--resume"],
        "--resume, --retry-failed and --force need the --output-dir",
    ),
    (["run", "brief.yaml"], "its --mode"),
    (["run", "--rerun", "x"], "--results FOLDER"),
    (["run", "--rerun", "x", "--results", "nowhere"], "does not exist"),
    (["run", "--rerun", "x", "--results", "y", "--mode", "mps"], "already defines"),
    (["run", "--rerun", "x", "--results", "y", "--mig", "real"], "already defines"),
    (["run", "brief.yaml", "--mode", "mps", "--mig-layout", "3:1"], "is for mode mig"),
    (["run", "brief.yaml", "--mode", "mig", "--mig-layout", "3:x"], "nor a MIG profile"),
    (
        ["run", "brief.yaml", "--mode", "mps", "--resume"],
        "--resume, --retry-failed and --force need the --output-dir",
    ),
    (["matrix", "brief.yaml", "--launcher", "external", "--device", "cpu"], "has no effect"),
    (["analyze", "nowhere"], "does not exist"),
    (["analyze", "."], "not a result folder"),
    (["validate", "nowhere.yaml"], "cannot be read"),
    (["frobnicate"], "No such command"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG_FLAGS)
def test_wrong_flags_are_explained(
    workplace: Workplace, arguments: list[str], message: str
) -> None:
    """Exit code 2, the reason in plain words, no traceback, no result folder."""
    done = workplace.run(*arguments)
    assert done.returncode == 2, done.stdout
    assert message in done.stdout
    assert "Traceback" not in done.stdout
    assert not (workplace.path / "results").exists()


def test_wrong_yaml_names_file_line_and_column(workplace: Workplace) -> None:
    """The place of a mistake can be clicked on."""
    text = (workplace.path / "brief.yaml").read_text()
    path = workplace.write("wrong.yaml", text.replace("rate_per_s: 12", "rate_per_s: -12"))
    done = workplace.run("matrix", path)
    assert done.returncode == 2
    assert f"{path}:10:42" in done.stdout
    assert "greater than 0" in done.stdout


def test_a_missing_dataset_is_found_before_anything_starts(workplace: Workplace) -> None:
    """The file is read as a preflight, not when its tenant's first request is due."""
    text = (workplace.path / "brief.yaml").read_text()
    wrong = text.replace(
        "{kind: synthetic, tokens: {kind: fixed, tokens: 16}}", "{kind: jsonl, path: none.jsonl}"
    )
    done = workplace.run("matrix", workplace.write("wrong.yaml", wrong))
    assert done.returncode == 2
    assert "none.jsonl" in done.stdout
    assert not (workplace.path / "results").exists()
    assert "none.jsonl" in workplace.run("validate", "wrong.yaml").stdout


def test_a_gpu_that_is_not_there_is_a_failed_preflight(workplace: Workplace) -> None:
    """Exit code 3, with what else could be used; CI has no GPU."""
    done = workplace.run("matrix", "brief.yaml", "--device", "cuda:97")
    assert done.returncode == 3, done.stdout
    assert "hint: " in done.stdout


def test_results_are_never_overwritten(workplace: Workplace) -> None:
    """A folder with results, or with anything else, is refused."""
    first = workplace.run("run", "brief.yaml", "--mode", "logical", "--output-dir", "out")
    assert first.returncode == 0, first.stdout
    again = workplace.run("run", "brief.yaml", "--mode", "logical", "--output-dir", "out")
    assert again.returncode == 2
    assert "--resume" in again.stdout
    (workplace.path / "mine").mkdir()
    workplace.write("mine/thesis.txt", "precious")
    foreign = workplace.run("run", "brief.yaml", "--mode", "logical", "--output-dir", "mine")
    assert foreign.returncode == 2
    assert [path.name for path in (workplace.path / "mine").iterdir()] == ["thesis.txt"]


def _cpu(workplace: Workplace, launcher: str, *more: str) -> tuple[int, str]:
    done = workplace.run(
        "matrix", "brief.yaml", "--device", "cpu", "--launcher", launcher, "--model", "tiny",
        "--output-dir", "out", "--no-report", *more,
    )  # fmt: skip
    ours = done.stdout.split("cells without figures")[0]
    ours = "".join(line for line in ours.splitlines(True) if not line.lstrip().startswith("| "))
    assert "Traceback (most recent call last)" not in ours  # but in an engine's last lines
    return done.returncode, done.stdout


def test_the_fake_engine_works_when_it_behaves(workplace: Workplace) -> None:
    """What the tests below see go wrong goes right without the failure."""
    launcher = workplace.fake_launcher(ttft_ms=5, itl_ms=1)
    code, shown = _cpu(workplace, launcher, "--modes", "timeslice,mps")
    assert code == 0, shown
    assert "2 cells ok" in shown


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("die_at_start", "exited with code 1 before it was ready"),
        ("never_ready", "not ready"),
        ("hang_health", "not ready"),
    ],
)
def test_a_server_that_never_serves_is_diagnosed(
    workplace: Workplace, behaviour: str, message: str
) -> None:
    """The cell fails with exit code or last log lines; the sweep goes on to the other mode."""
    launcher = workplace.fake_launcher(behaviour=behaviour)
    text = (workplace.path / "fake.yaml").read_text()
    workplace.write("fake.yaml", text.replace("ready_timeout_s: 10", "ready_timeout_s: 2"))
    code, shown = _cpu(workplace, launcher, "--modes", "logical,timeslice")
    assert code == 1
    assert message in shown
    assert "0 cells ok, 2 failed" in shown


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        ("garbage", "bad_response"),
        ("garbage_events", "bad_response"),
        ("http_400", "http_4xx"),
        ("http_500", "http_5xx"),
        ("error_then_done", "server_error"),
        ("disconnect", "disconnect"),
        ("abort", "aborted"),
        ("no_usage", "no_usage"),
        ("stall", "unfinished"),
    ],
)
def test_a_server_that_answers_wrongly_fails_the_cell_by_kind(
    workplace: Workplace, behaviour: str, kind: str
) -> None:
    """Every request is recorded with its kind of error, and the cell says so."""
    launcher = workplace.fake_launcher(behaviour=behaviour)
    code, shown = _cpu(workplace, launcher, "--modes", "logical", "--drain", "1")
    assert code == 1
    assert "requests succeeded" in shown
    assert kind in shown
    records = workplace.records("out", "brief_logical_c1_r1")
    assert records
    assert kind in {record.error.value for record in records if record.error}
    assert not any(record.ok for record in records)


def test_a_server_that_dies_fails_its_cell_and_no_other(workplace: Workplace) -> None:
    """The diagnosis names it; servers are started again for the cell that remains, which is ok."""
    # One client of a server that takes 20 ms cannot ask 100 times in a cell of 1.3 s; eight can.
    launcher = workplace.fake_launcher(behaviour="die_after_requests", after=100, ttft_ms=20)
    code, shown = _cpu(workplace, launcher, "--modes", "timeslice", "--concurrency", "8,1")
    assert code == 1, shown
    cells = workplace.cells("out")
    assert cells["brief_timeslice_c8_r1"].result.status.value == "failed"
    assert "exited" in (cells["brief_timeslice_c8_r1"].result.reason or "")
    assert cells["brief_timeslice_c1_r1"].result.status.value == "ok"
    assert len(cells) == 2


def test_a_server_that_leaks_a_child_leaves_none(workplace: Workplace) -> None:
    """A process that outlives its server is found by its label and ended."""
    code, shown = _cpu(workplace, workplace.fake_launcher(behaviour="leak_child"))
    assert code == 0, shown


def test_a_port_in_use_is_said_before_the_start(workplace: Workplace) -> None:
    """A port that the launcher asks for and somebody else has is named."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        launcher = workplace.fake_launcher(port=port)
        code, shown = _cpu(workplace, launcher, "--modes", "logical")
    assert code == 1
    assert "in use" in shown


def test_a_key_that_is_not_set_is_a_failed_preflight(workplace: Workplace) -> None:
    """The variable that should hold the key is named before anything is asked."""
    launcher = workplace.write(
        "keyed.yaml",
        "name: keyed\nengine: external\nendpoints:\n"
        "  default: {url: 'http://127.0.0.1:9', api_key_env: NO_SUCH_KEY}\n",
    )
    done = workplace.run("matrix", "brief.yaml", "--launcher", launcher)
    assert done.returncode == 3, done.stdout
    assert "NO_SUCH_KEY" in done.stdout


def test_an_external_server_is_measured_and_left_alone(workplace: Workplace) -> None:
    """Servers of others are measured, marked as unverified, and not stopped."""
    port = free_port()
    fake = workplace.start_fake(port)
    launcher = workplace.write(
        "external.yaml",
        f"name: mine\nengine: external\nendpoints: {{default: {{url: 'http://127.0.0.1:{port}'}}}}\n",
    )
    try:
        done = workplace.run(
            "matrix", "brief.yaml", "--launcher", launcher, "--output-dir", "out", "--no-report"
        )
        assert fake.poll() is None
    finally:
        fake.terminate()
        fake.wait()
    assert done.returncode == 0, done.stdout
    assert "measured, sharing unverified" in done.stdout
    cell = workplace.cells("out")["brief_logical_c1_r1"].result
    assert cell.provenance.value == "measured, sharing unverified"
