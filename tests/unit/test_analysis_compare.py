"""Result folders side by side: what is paired, what is said first, and what is a regression."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import click
import orjson
import pytest
from click.testing import CliRunner

from fairshare.analysis.analyze import analyze
from fairshare.analysis.compare import Limits, compare
from fairshare.analysis.comparison import as_csv, as_json, as_markdown, conclusions
from fairshare.analysis.differences import Difference, Sample, between_modes, difference
from fairshare.analysis.stats import Interval, difference_interval
from fairshare.analysis.summary import summary_json
from fairshare.cli.compare import compare_command
from fairshare.errors import ExitCode, ResultsError
from fairshare.records import CellKey, CellStatus, Mode, Provenance
from fairshare.results import ResultStore, layout
from tests import results_factory
from tests.results_factory import TWO_TENANTS, add_cell, make_results

SHORT = {"concurrency": [4], "window_s": 5.0}
KEY = CellKey("two-tenants", Mode.MPS, 4, 1)


def folder(path: Path, *, modes: tuple[Mode, ...] = (Mode.MPS,), repetitions: int = 3) -> Path:
    """A result folder of the factory's."""
    make_results(path, modes=modes, repetitions=repetitions, **SHORT)  # type: ignore[arg-type]
    return path


@pytest.fixture
def slower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A folder, and another of the same seeds in which each token takes a fifth longer."""
    first = folder(tmp_path / "a")
    speed, tail = results_factory.SPEED[Mode.MPS]
    monkeypatch.setitem(results_factory.SPEED, Mode.MPS, (1.2 * speed, tail))
    return first, folder(tmp_path / "b")


def run(*arguments: object) -> tuple[int, str]:
    """The command's exit code and what it prints."""
    words = [str(each) for each in arguments]
    done = CliRunner().invoke(compare_command, words, standalone_mode=False)
    if isinstance(done.exception, click.ClickException):
        return ExitCode.BAD_INPUT, done.exception.format_message()
    if done.exception is not None:
        raise done.exception
    return int(done.return_value), done.output


def test_pairing_takes_out_what_the_seeds_bring() -> None:
    """Runs that differ by seed far more than by folder still show the folders' difference."""
    seeds = {1: 10.0, 2: 50.0, 3: 200.0}
    first = {n: Sample(value, None) for n, value in seeds.items()}
    second = {n: Sample(value + 1 + n / 100, None) for n, value in seeds.items()}
    found = difference(first, second)
    assert found is not None
    assert found.interval is not None
    assert (found.pairs, found.change) == (3, pytest.approx(1.02))
    # 1.02 +- 4.302653 x 0.01 / sqrt(3), Student's t of the three differences
    assert (found.interval.low, found.interval.high) == pytest.approx((0.995158, 1.044842))


def test_only_repetitions_that_both_have_are_paired() -> None:
    """The third run of one side has no partner; without any there is no difference."""
    first = {n: Sample(float(n), None) for n in (1, 2)}
    second = {n: Sample(float(n), None) for n in (2, 3)}
    found = difference(first, second)
    assert found == Difference(2.0, 2.0, 1, None)
    assert difference(first, {7: Sample(1.0, None)}) is None


def test_the_difference_of_two_single_runs_has_the_intervals_of_both() -> None:
    """10 +- 3 and 15 +- 4 differ by 5 +- 5; where one has no interval there is none."""
    one, other = Sample(10, Interval(7, 13)), Sample(15, Interval(11, 19))
    assert difference_interval(10, Interval(7, 13), 15, Interval(11, 19)) == Interval(0, 10)
    found, bare = difference({1: one}, {1: other}), difference({1: one}, {1: Sample(15, None)})
    assert found is not None
    assert found.interval == Interval(0, 10)
    assert not found.certain
    assert bare is not None
    assert bare.interval is None


def test_each_mode_is_held_against_each_other_by_seed(tmp_path: Path) -> None:
    """In the summary too; the baseline and figures of another origin are left out."""
    modes = (Mode.EXCLUSIVE, Mode.LOGICAL, Mode.MPS, Mode.MIG)
    analysis = analyze(ResultStore.open(folder(tmp_path / "a", modes=modes)))
    simulated = [
        replace(cell, result=replace(cell.result, provenance=Provenance.SIMULATED))
        if cell.result.key.mode is Mode.MIG
        else cell
        for cell in analysis.cells
    ]
    found = between_modes(simulated)
    assert {(each.first, each.second) for each in found} == {("logical", "mps-cpu")}
    [tpot] = [each for each in found if (each.tenant, each.metric) == ("batch", "tpot_p50_s")]
    assert tpot.difference.pairs == 3
    assert tpot.difference.certain
    assert tpot.difference.change > 0
    told = orjson.loads(summary_json(analysis, []))["differences"]
    assert len({(line["first"], line["second"]) for line in told}) == 3


def test_worse_is_more_of_a_latency_and_less_of_a_rate() -> None:
    """Also from nothing: the first limit missed is infinitely worse than none met."""
    fell = Difference(100.0, 90.0, 3, Interval(-11, -9))
    assert fell.for_the_worse("output_tokens_per_s") == pytest.approx(0.1)
    assert fell.for_the_worse("ttft_p50_s") == pytest.approx(-0.1)
    assert Difference(0.0, 1.0, 3, None).for_the_worse("e2e_p99_s") == float("inf")
    assert Difference(0.0, 0.0, 3, None).for_the_worse("e2e_p99_s") == 0


def test_a_folder_beside_itself_shows_no_difference(tmp_path: Path) -> None:
    """Nothing is worse, nothing is better, and no limit however small is passed."""
    same = folder(tmp_path / "a")
    found = compare([same, same], Limits(0.0))
    assert found.changes
    assert {change.verdict for change in found.changes} <= {"the same", "no interval"}
    assert not (found.regressions or found.origins or found.unpaired)
    assert run(same, same, "--max-regression", "0%")[0] == ExitCode.OK


def test_a_regression_ends_with_its_exit_code(slower: tuple[Path, Path]) -> None:
    """Tokens that take 20 % longer: 6 with a limit below that, 0 with one above or unasked."""
    found = compare(slower)
    assert {"tpot_p50_s"} <= {change.metric for change in found.regressions}
    assert run(*slower)[0] == ExitCode.OK
    assert run(*slower, "--fail-on-regression")[0] == ExitCode.REGRESSION
    only = ("--metric", "tpot_p50_s", "--max-regression")
    assert run(*slower, *only, "15%")[0] == ExitCode.REGRESSION
    assert run(*slower, *only, "25%")[0] == ExitCode.OK
    assert run(*slower, *only, "25%", "--max-regression", "tpot_p50_s=10%")[0] == 6
    backwards = run(slower[1], slower[0], "--fail-on-regression")
    assert backwards[0] == ExitCode.OK, "faster is no regression"


def test_another_engine_is_shown_and_not_ranked(slower: tuple[Path, Path]) -> None:
    """Figures of two engines stand side by side: neither is better, and none is a regression."""
    store = ResultStore.open(slower[1])
    found = {**store.matrix["provenance"], "engine": {"name": "transformers", "version": "5"}}
    store.save_matrix({**store.matrix, "provenance": found})
    code, said = run(*slower, "--fail-on-regression")
    assert code == 0
    assert "another engine" in said
    assert "REGRESSION" not in said


def test_cells_without_a_partner_are_named_with_the_reason(tmp_path: Path) -> None:
    """Missing is said; failed where the first folder worked is a regression in itself."""
    first = folder(tmp_path / "a", repetitions=2)
    store = make_results(tmp_path / "b", modes=[Mode.MPS], repetitions=1, **SHORT)  # type: ignore[arg-type]
    code, text = run(first, store.dir, "--fail-on-regression")
    assert code == ExitCode.OK
    assert "B: two-tenants_mps_c4_r2: not run" in text
    second = replace(KEY, repetition=2)
    add_cell(store, second, TWO_TENANTS, status=CellStatus.FAILED, reason="out of memory\nmore")
    code, text = run(first, store.dir, "--fail-on-regression")
    assert code == ExitCode.REGRESSION
    assert "B: two-tenants_mps_c4_r2: failed: out of memory" in text
    assert run(store.dir, first, "--fail-on-regression")[0] == ExitCode.OK, "it works now"


def test_a_killed_cell_is_said_to_be_killed(tmp_path: Path) -> None:
    """A folder without cell.json is what a killed run leaves; the other repetition is compared."""
    first, second = folder(tmp_path / "a", repetitions=2), folder(tmp_path / "b", repetitions=2)
    [killed] = (second / layout.CELLS).glob("*_r2-*")
    (killed / layout.CELL).unlink()
    killed.rename(killed.with_name(killed.name + layout.PARTIAL))
    found = compare([first, second])
    assert [(cell.folder, cell.broken) for cell in found.unpaired] == [(1, True)]
    assert "killed" in found.unpaired[0].reason


def test_one_repetition_says_what_it_cannot_tell(tmp_path: Path) -> None:
    """The last lines end in the flag that helps."""
    first, second = folder(tmp_path / "a", repetitions=1), folder(tmp_path / "b", repetitions=1)
    found = compare([first, second])
    assert any("--num-runs" in said for said in conclusions(found))
    assert all(change.difference.interval is None for change in found.changes
               if change.metric == "ttft_p99_s")  # fmt: skip


def test_what_else_differs_is_said_before_any_figure(tmp_path: Path) -> None:
    """Engine, driver, clocks and settings: another cause of every difference below them."""
    first, second = folder(tmp_path / "a"), folder(tmp_path / "b")
    for path, version, clock, seqs in ((first, "0.30", 1980, 4), (second, "0.32", 1410, 8)):
        store = ResultStore.open(path)
        engine = {"engine": {"name": "vllm", "version": version}, "device": {"driver": "580"}}
        store.save_matrix({**store.matrix, "provenance": engine})
        for cell in (path / layout.CELLS).iterdir():
            config = f"launcher:\n  args:\n    max_num_seqs: {seqs}\ntenants:\n- name: chat\n"
            (cell / layout.CONFIG).write_text(config)
            gpu = "t_s,sm_clock_mhz\n" + "".join(f"{t},{clock}\n" for t in range(10))
            (cell / layout.GPU).write_text(gpu)
    found = {origin.what: origin.values for origin in compare([first, second]).origins}
    assert found == {
        "engine.version": ("0.30", "0.32"),
        "SM clock, median": ("1,980 MHz", "1,410 MHz"),
        "settings: launcher.args.max_num_seqs": ("4", "8"),
    }
    text = run(first, second)[1]
    assert text.index("engine.version") < text.index("two-tenants, concurrency 4")
    markdown = as_markdown(compare([first, second]))
    assert markdown.index("engine.version") < markdown.index("two-tenants, concurrency 4")


def test_settings_that_stand_for_billions_are_refused(tmp_path: Path) -> None:
    """Aliases in a YAML file double with each line; the file is named as damaged."""
    first, second = folder(tmp_path / "a", repetitions=1), folder(tmp_path / "b", repetitions=1)
    bomb = "a0: &a0 {x: 1, y: 1}\n"
    bomb += "".join(f"a{n}: &a{n} {{x: *a{n - 1}, y: *a{n - 1}}}\n" for n in range(1, 60))
    [cell] = (second / layout.CELLS).iterdir()
    (cell / layout.CONFIG).write_text(bomb)
    with pytest.raises(ResultsError, match=r"config\.resolved\.yaml"):
        compare([first, second])


def test_folders_that_cannot_be_used_end_in_one_message(tmp_path: Path) -> None:
    """One folder, no folder, nothing in common, a damaged line: what, where, and what to do."""
    first, other = folder(tmp_path / "a"), folder(tmp_path / "b", modes=(Mode.LOGICAL,))
    assert run(first)[0] == ExitCode.BAD_INPUT
    assert run(first, first, "--metric", "beauty")[0] == ExitCode.BAD_INPUT
    assert run(first, first, "--max-regression", "5")[0] == ExitCode.BAD_INPUT
    with pytest.raises(ResultsError, match="nothing to compare"):
        compare([first, other])
    with pytest.raises(ResultsError, match="does not exist"):
        compare([first, tmp_path / "c"])
    [cell, *_] = sorted((other / layout.CELLS).iterdir())
    (cell / layout.REQUESTS).write_text("{}\n")
    with pytest.raises(ResultsError, match=r"requests\.jsonl:1: damaged"):
        compare([first, other])


def test_other_forms_say_the_same(slower: tuple[Path, Path]) -> None:
    """JSON, CSV and Markdown have every change, with the same verdicts."""
    found = compare(slower)
    loaded = orjson.loads(as_json(found))
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert len(loaded["changes"]) == len(rows) == len(found.changes)
    assert loaded["regressions"] == len(found.regressions) > 0
    assert [row["verdict"] for row in rows] == [change.verdict for change in found.changes]
    assert as_markdown(found).count("REGRESSION") == len(found.regressions)


def test_hostile_names_are_shown_and_do_nothing(tmp_path: Path) -> None:
    """A tenant's name cannot become markup, a formula, a table cell or a terminal's command."""
    name = "=1+1|<b>\x1b[31m[red]"
    tenants = (replace(TWO_TENANTS[0], name=name), TWO_TENANTS[1])
    for side in ("a", "b"):
        store = ResultStore.create(tmp_path / side, {"name": "hostile"})
        add_cell(store, KEY, tenants, window_s=5.0)
    found = compare([tmp_path / "a", tmp_path / "b"])
    assert "'=1+1" in as_csv(found)
    assert "<b>" not in as_markdown(found).replace("\\<", "")
    assert "\x1b" not in as_csv(found) + as_markdown(found) + run(tmp_path / "a", tmp_path / "b")[1]
    assert "[red]" in run(tmp_path / "a", tmp_path / "b")[1]
