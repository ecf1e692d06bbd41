"""Result folders: written crash-safe, read with care."""

from __future__ import annotations

import errno
import gzip
import os
from pathlib import Path

import pytest

from fairshare.errors import ExitCode, ResultsError, StoppedEarlyError
from fairshare.records import (
    CellKey,
    CellResult,
    CellStatus,
    ErrorKind,
    Mode,
    Phase,
    Provenance,
    RequestRecord,
)
from fairshare.results import ResultStore, layout
from fairshare.results import writer as writer_module

HOSTILE = [
    "../../etc/passwd",
    "/abs",
    "..",
    ".",
    "",
    "a/b",
    "x\x00y",
    "-rf",
    "a.partial",
    "a" * 500,
]


def _record(number: int, **changes: object) -> RequestRecord:
    values: dict[str, object] = {
        "id": f"q{number}",
        "tenant": "chat",
        "server": "s0",
        "phase": Phase.MEASURE,
        "intended_ns": number,
    }
    return RequestRecord(**(values | changes))  # type: ignore[arg-type]  # test data


def _result(cell_id: str = "cell-1", status: CellStatus = CellStatus.OK) -> CellResult:
    key = CellKey("two-tenants", Mode.MPS, 4)
    return CellResult(cell_id, key, status, "mps", Provenance.SIMULATED, window_ns=(0, 10))


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    """A new result folder."""
    return ResultStore.create(tmp_path / "out", {"name": "t"})


def test_packed_records_are_read_and_damage_is_told(store: ResultStore) -> None:
    """What is kept for long may be gzipped; a file cut short is an error with its name."""
    cell = store.begin_cell("cell-1")
    cell.append(_record(1))
    cell.finish(_result())
    (kept,) = store.cells()
    plain = kept.dir / layout.REQUESTS
    packed = plain.with_name("requests.jsonl.gz")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    assert [record.id for record in kept.records()] == ["q1"]
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(ResultsError, match=r"requests\.jsonl\.gz: cannot be read"):
        list(kept.records())


def test_records_come_back_as_they_were_written(store: ResultStore) -> None:
    """A finished cell reads back value by value, under its final name."""
    cell = store.begin_cell("cell-1")
    records = [
        _record(1, chunk_ns=[3, 5], chunk_tokens=[1, 4], output_tokens=5, end_ns=9),
        _record(2, error=ErrorKind.STALLED, error_text="</script>\n\x00", sent_ns=4),
    ]
    for record in records:
        cell.append(record)
    cell.write_config({"a": {"b": [1, "ü"]}})
    final = cell.finish(_result())
    assert final == store.cells_dir / "cell-1"
    (stored,) = ResultStore.open(store.dir).cells()
    assert stored.complete
    assert stored.result == _result()
    assert list(stored.records()) == records
    assert (final / layout.CONFIG).read_text() == "a:\n  b:\n  - 1\n  - ü\n"


@pytest.mark.parametrize("cell_id", HOSTILE)
def test_a_hostile_id_stays_below_cells(store: ResultStore, cell_id: str) -> None:
    """Whatever a cell is called, its folder lies directly below ``cells/``."""
    final = store.begin_cell(cell_id).finish(_result(cell_id))
    assert final.parent == store.cells_dir
    assert final.resolve().parent == store.cells_dir.resolve()
    assert [cell.result.id for cell in store.cells()] == [cell_id]


def test_hostile_ids_do_not_collide() -> None:
    """Two ids never share a folder, even where cleaning makes them look alike."""
    ids = [*HOSTILE, "a-b", "a//b", "a_b"]
    assert len({layout.cell_folder(cell_id) for cell_id in ids}) == len(ids)


def test_records_reach_the_file_before_the_end(store: ResultStore) -> None:
    """After 1000 records they are in the file, so a kill cannot take them."""
    cell = store.begin_cell("cell-1")
    for number in range(1000):
        cell.append(_record(number))
    assert (cell.dir / layout.REQUESTS).read_bytes().count(b"\n") == 1000


def test_records_reach_the_file_after_a_second(
    store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that comes a second after the last flush is flushed with all before it."""
    now = [100.0]
    monkeypatch.setattr(writer_module.time, "monotonic", lambda: now[0])
    cell = store.begin_cell("cell-1")
    cell.append(_record(1))
    assert (cell.dir / layout.REQUESTS).read_bytes() == b""
    now[0] += 1.0
    cell.append(_record(2))
    assert (cell.dir / layout.REQUESTS).read_bytes().count(b"\n") == 2


def test_a_killed_cell_is_listed_as_such_and_restarted_clean(store: ResultStore) -> None:
    """A folder without cell.json is a killed cell; starting it again removes the leftovers."""
    cell = store.begin_cell("cell-1")
    cell.append(_record(1))
    cell.flush()
    again = ResultStore.open(store.dir)
    assert (again.cells(), again.killed()) == ([], ["cell-1"])
    again.begin_cell("cell-1").finish(_result())
    assert again.killed() == []
    assert list(again.cells()[0].records()) == []


def test_an_abandoned_cell_keeps_records_and_reason(store: ResultStore) -> None:
    """Giving a cell up keeps what was measured, readable, until a complete one replaces it."""
    cell = store.begin_cell("cell-1")
    cell.append(_record(1))
    cell.abandon(_result(status=CellStatus.INTERRUPTED))
    (stored,) = store.cells()
    assert not stored.complete
    assert stored.result.status is CellStatus.INTERRUPTED
    assert len(list(stored.records())) == 1


def test_a_line_cut_short_is_passed_over_in_a_partial_cell(store: ResultStore) -> None:
    """The half line that a kill leaves costs that line alone."""
    cell = store.begin_cell("cell-1")
    cell.append(_record(1))
    cell.abandon(_result(status=CellStatus.INTERRUPTED))
    with (cell.dir / layout.REQUESTS).open("ab") as file:
        file.write(_record(2).to_json()[:40])
    assert [record.id for record in store.cells()[0].records()] == ["q1"]


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[1]",
        b"\xff\xfe",
        b'{"id": "q"}',
        _record(1).to_json().replace(b'"server"', b'"serber"'),
        _record(1).to_json().replace(b'"measure"', b'"later"'),
        _record(1).to_json().replace(b'"sent_ns":null', b'"sent_ns":"soon"'),
        _record(1).to_json().replace(b'"call":null', b'"call":"first"'),
        _record(1).to_json().replace(b'"empty_chunks":null', b'"empty_chunks":[]'),
        _record(1).to_json().replace(b'"app":null', b'"app":7'),
        _record(1).to_json().replace(b'"interaction":null', b'"interaction":["a"]'),
        _record(1).to_json().replace(b'"chunk_ns":[]', b'"chunk_ns":[1.5]'),
        _record(1).to_json().replace(b'"chunk_ns":[]', b'"chunk_ns":[1]'),
        _record(1).to_json().replace(b'"intended_ns":1', b'"intended_ns":18446744073709551615'),
    ],
)
def test_a_damaged_line_of_a_complete_cell_is_named(store: ResultStore, line: bytes) -> None:
    """Damage is an error with file and line, never a silent gap or a traceback."""
    cell = store.begin_cell("cell-1")
    cell.append(_record(0))
    final = cell.finish(_result())
    with (final / layout.REQUESTS).open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(ResultsError) as caught:
        list(store.cells()[0].records())
    assert str(caught.value.where) == f"{final / layout.REQUESTS}:2"


def test_a_complete_cell_that_was_truncated_is_an_error(store: ResultStore) -> None:
    """A complete file must end in a line end."""
    cell = store.begin_cell("cell-1")
    cell.append(_record(0))
    final = cell.finish(_result())
    path = final / layout.REQUESTS
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ResultsError, match="cut short"):
        list(store.cells()[0].records())


@pytest.mark.parametrize("stage", ["writer", "files"])  # requests.jsonl, cell.json
def test_a_full_disk_stops_early_with_a_hint(
    store: ResultStore, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """No space left is exit code 5 with the way to go on; the cell does not become complete."""
    cell = store.begin_cell("cell-1")
    cell.append(_record(0))

    def full(descriptor: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(f"fairshare.results.{stage}.write_all", full)
    with pytest.raises(StoppedEarlyError, match="no space left") as caught:
        cell.finish(_result())
    assert caught.value.exit_code is ExitCode.STOPPED_EARLY
    assert "--resume" in (caught.value.hint or "")
    assert store.cells() == []
    assert store.killed() == ["cell-1"]


def test_a_full_disk_leaves_the_old_matrix(
    store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that could not be replaced keeps its old contents, and no temporary file stays."""

    def full(descriptor: int, data: bytes) -> None:
        os.write(descriptor, data[:3])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("fairshare.results.files.write_all", full)
    with pytest.raises(StoppedEarlyError):
        store.save_matrix({"name": "other"})
    assert ResultStore.open(store.dir).matrix["name"] == "t"
    assert sorted(path.name for path in store.dir.iterdir()) == ["cells", "matrix.json"]


def test_a_newer_complete_cell_replaces_the_older(store: ResultStore) -> None:
    """Rerunning a cell replaces it in whole."""
    store.begin_cell("cell-1").finish(_result())
    cell = store.begin_cell("cell-1")
    assert [stored.complete for stored in store.cells()] == [True]
    cell.append(_record(7))
    cell.finish(_result())
    assert [path.name for path in store.cells_dir.iterdir()] == ["cell-1"]
    assert [record.id for record in store.cells()[0].records()] == ["q7"]


def test_a_replacement_cut_off_in_the_middle_loses_nothing(store: ResultStore) -> None:
    """Killed between the two renames, the older complete cell is still the cell."""
    final = store.begin_cell("cell-1").finish(_result())
    store.begin_cell("cell-1").abandon(_result(status=CellStatus.FAILED))
    final.rename(final.with_name("cell-1" + layout.REPLACED))
    assert [stored.complete for stored in store.cells()] == [True]
    store.begin_cell("cell-1")
    assert final.is_dir()


@pytest.mark.parametrize("name", ["thesis.tex", ".hidden"])
def test_a_foreign_folder_is_refused(tmp_path: Path, name: str) -> None:
    """A folder with somebody else's files is never written to."""
    (tmp_path / name).write_text("mine")
    with pytest.raises(ResultsError, match="not results"):
        ResultStore.create(tmp_path, {})
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_earlier_run_is_not_overwritten(store: ResultStore) -> None:
    """A folder with results needs --resume, and the hint says so."""
    with pytest.raises(ResultsError) as caught:
        ResultStore.create(store.dir, {})
    assert "--resume" in (caught.value.hint or "")


def test_the_event_log_may_come_first(tmp_path: Path) -> None:
    """A folder that holds nothing but the run's own event log is as good as empty."""
    (tmp_path / layout.EVENTS).touch()
    assert ResultStore.create(tmp_path, {"name": "t"}).cells() == []


def test_what_is_no_result_folder_is_told_apart(tmp_path: Path) -> None:
    """Missing, foreign, damaged and future folders each get their own clear error."""
    with pytest.raises(ResultsError, match="does not exist"):
        ResultStore.open(tmp_path / "no")
    with pytest.raises(ResultsError, match=r"no matrix\.json"):
        ResultStore.open(tmp_path)
    path = tmp_path / layout.MATRIX
    for text, message in [
        ("{", "damaged"),
        ("[]", "not a JSON object"),
        ('{"format_version": 99}', "format version 99"),
    ]:
        path.write_text(text)
        with pytest.raises(ResultsError, match=message):
            ResultStore.open(tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"format_version": 1', b'"format_version": 2'),
        (b'"mps"', b'"mpz"'),
        (b'"tenants": []', b'"tenants": [{}]'),
        (b'"tenants": []', b'"tenants": [3]'),
        (b'"tenants": []', b'"tenants": 3'),
    ],
)
def test_a_damaged_cell_file_is_named(store: ResultStore, old: bytes, new: bytes) -> None:
    """A cell.json that cannot be understood is an error with its path."""
    final = store.begin_cell("cell-1").finish(_result())
    path = final / layout.CELL
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    with pytest.raises(ResultsError) as caught:
        store.cells()
    assert str(caught.value.where) == str(path)
