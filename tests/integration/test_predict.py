"""``predict`` and ``calibrate`` as a user runs them: a whole matrix without a server."""

from __future__ import annotations

import re
from statistics import median

import orjson
import pytest

from fairshare.errors import ExitCode
from fairshare.records import CellStatus, Mark, Mode, Provenance, RequestRecord
from tests.workplace import Workplace

MODES = "exclusive,logical,timeslice,mps,mig"


def test_a_whole_matrix_is_predicted_and_can_be_analysed(workplace: Workplace) -> None:
    """Every mode gives the files of a run, marked as simulated, twice the same to the last bit."""
    for out in ("first", "second"):
        done = workplace.run(
            *("predict", "brief.yaml", "--modes", MODES, "--policies", "fcfs,vtc"),
            *("--concurrency", "3", "--output-dir", out, "--no-report"),
        )
        assert done.returncode == ExitCode.OK, done.stdout
        assert "simulated" in done.stdout
    first, second = workplace.cells("first"), workplace.cells("second")
    assert len(first) == 7  # exclusive has a cell for each tenant, logical one for each policy
    for slug, one in first.items():
        assert one.result.status is CellStatus.OK
        assert one.result.provenance is Provenance.SIMULATED
        assert one.result.client == {"virtual_time": True}
        assert any("virtual time" in note for note in one.result.notes)
        assert (Mark.UNVALIDATED in one.result.marks) == (one.result.key.mode is Mode.MIG)
        assert [r.to_json() for r in one.records()] == [r.to_json() for r in second[slug].records()]
        assert all(record.ok for record in one.records())


def test_another_gpu_gives_another_answer(workplace: Workplace) -> None:
    """What if it were an H200: the same requests, each faster."""
    for gpu in ("a100-40", "h200"):
        done = workplace.run(
            *("predict", "brief.yaml", "--modes", "logical", "--device", f"virtual:{gpu}"),
            *("--output-dir", gpu, "--no-report"),
        )
        assert done.returncode == ExitCode.OK, done.stdout
    [slow], [fast] = (workplace.cells(gpu).values() for gpu in ("a100-40", "h200"))

    def tpot_s(records: list[RequestRecord]) -> float:
        return median(
            (r.chunk_ns[-1] - r.chunk_ns[0]) / (len(r.chunk_ns) - 1) / 1e9 for r in records
        )

    assert tpot_s(list(fast.records())) < 0.6 * tpot_s(list(slow.records()))


def test_what_was_said_before_is_found_in_the_prefix_cache(workplace: Workplace) -> None:
    """Each further turn of a conversation has its beginning cached, unless the cache is off."""
    cached: dict[str, list[int]] = {}
    for switch in ("true", "false"):
        done = workplace.run(
            *("predict", "conversations", "--modes", "logical", "--output-dir", switch),
            *("--engine-arg", f"enable_prefix_caching={switch}", "--no-report"),
        )
        assert done.returncode == ExitCode.OK, done.stdout
        [cell] = workplace.cells(switch).values()
        later = [r for r in cell.records() if r.ok and (r.call or 1) > 1]
        cached[switch] = [r.cached_tokens or 0 for r in later]
    assert len(cached["true"]) > 10
    assert all(tokens % 16 == 0 for tokens in cached["true"])
    assert median(cached["true"]) >= 32
    assert set(cached["false"]) == {0}


def test_calibration_is_kept_and_used_and_predictions_stand_beside_what_was_measured(
    workplace: Workplace,
) -> None:
    """A run (of the simulator, here) is predicted cell by cell, and fitted with its errors."""
    run = ("predict", "brief.yaml", "--modes", "exclusive,mps", "--window", "20", "--no-report")
    assert workplace.run(*run, "--output-dir", "run").returncode == ExitCode.OK
    fitted = workplace.run("calibrate", "run")
    assert fitted.returncode == ExitCode.OK, fitted.stdout
    assert "to themselves (simulated):" in fitted.stdout
    kept = orjson.loads((workplace.path / "run" / "analysis" / "calibration.json").read_bytes())
    assert abs(kept["held_out"]["e2e"]) < 0.02
    assert kept["gpu"] == "a100-40"
    plain = workplace.run("predict", "--against", "run", "--output-dir", "plain")
    assert plain.returncode == ExitCode.OK, plain.stdout
    assert "mean absolute error: output tok/s 0.0 % (at most 0.0 %)" in plain.stdout
    assert re.search(r"([1-9]\d*) of \1 figures within the 95 % interval", plain.stdout)
    used = workplace.run(
        *("predict", "--against", "run", "--calibration", "run", "--output-dir", "used")
    )
    assert used.returncode == ExitCode.OK, used.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("predict", "brief.yaml", "--device", "cpu"), "--device virtual:NAME"),
        (("predict", "brief.yaml", "--against", "nowhere"), "give no SCENARIO"),
        (("calibrate", "nowhere"), "does not exist"),
    ],
    ids=["a real device", "both", "nothing to calibrate"],
)
def test_bad_input_is_told_in_words(
    workplace: Workplace, arguments: tuple[str, ...], says: str
) -> None:
    """What cannot be done ends in an exit code, a sentence and a remedy, without a traceback."""
    done = workplace.run(*arguments)
    assert done.returncode not in (0, None)
    assert says in done.stdout
    assert "Traceback" not in done.stdout
