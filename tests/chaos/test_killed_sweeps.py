"""SIGKILL a sweep again and again, resumed each time: nothing is lost, nothing comes twice."""

from __future__ import annotations

import hashlib
import random
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import pytest

from fairshare.results.store import ResultStore, StoredCell
from tests.chaos.stage import kill_reaper
from tests.workplace import ROOT, Workplace, workplace

__all__ = ["workplace"]

pytestmark = pytest.mark.timeout(3600)
SEED = 20261122
ENDS_WITHIN_S = 900
PATIENCE_S = 240  # starved of the processor, one life of several takes long to begin
LATEST_EVENT = 28  # of a life: about its third cell
# The open loop's requests follow from the seed alone, times included; of a closed loop's, how many
# there are depends on how fast answers come.
FEED_TOKENS = 100  # its prompts are told from the others' by their length
SCENARIO = """\
name: moment
timing: {warmup_s: 0, window_s: 0.1, drain_s: 5}
tenants:
  - name: feed
    arrival: {kind: poisson, rate_per_s: 40}
    prompts: {kind: synthetic, tokens: {kind: uniform, min: 100, max: 200}}
    output: {kind: uniform, min: 2, max: 6}
  - name: talk
    arrival: {kind: closed, concurrency: 1}
    prompts: {kind: synthetic, tokens: {kind: uniform, min: 8, max: 64}}
    output: {kind: uniform, min: 2, max: 6}
"""


@dataclass
class Killed:
    """One sweep that is killed and resumed, with what was complete when it died."""

    place: Workplace
    load_scales: str
    rounds: int
    folder: str
    complete: dict[str, str] = field(default_factory=dict)
    deaths: Counter[str] = field(default_factory=Counter)

    @property
    def gpu(self) -> Path:
        """A simulated GPU of its own: two sweeps may run at once."""
        return self.place.path / f"gpu-{self.folder}"

    def prompts(self) -> set[str]:
        """What the open loop has asked the servers, in whatever life."""
        lines = Path(f"{self.gpu}.prompts").read_text().splitlines()
        return {line for line in lines if int(line.partition(" ")[0]) >= FEED_TOKENS}

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        """One life; its output goes to a file, since nobody reads it."""
        arguments = (
            "matrix", "moment.yaml", "--device", "virtual:a100-40", "--launcher", "noting.yaml",
            "--model", "qwen3-0.6b", "--modes", "logical,exclusive", "--no-report",
            "--load-scale", self.load_scales, "--num-runs", str(self.rounds),
            "--output-dir", self.folder, *more,
        )  # fmt: skip
        env = {**self.place.env, "FAIRSHARE_VIRTUAL_GPU": str(self.gpu)}
        with (self.place.path / f"{self.folder}.txt").open("wb") as output:
            return subprocess.Popen(
                self.place.command(*arguments),
                cwd=self.place.path,
                env=env,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def finish(self, *more: str) -> None:
        """A life that nobody ends."""
        code = self.start(*more).wait(timeout=ENDS_WITHIN_S)
        assert code == 0, (self.place.path / f"{self.folder}.txt").read_text()[-3000:]

    def live_and_die(self, source: random.Random) -> None:
        """One life up to a moment of the seed's choice: so many events after its start."""
        events = self.place.path / self.folder / "events.jsonl"
        before = _lines(events)
        count = source.randint(0, LATEST_EVENT)
        later_s = source.uniform(0, 0.1 if count else 1.5)
        with_reaper = source.random() < 1 / 3
        life = self.start("--resume")
        deadline_s = time.monotonic() + PATIENCE_S
        try:
            while _lines(events) < before + count and life.poll() is None:
                assert time.monotonic() < deadline_s, "it does not get on"
                time.sleep(0.005)  # the file grows in another process: there is nothing to wait on
            time.sleep(later_s)  # the moment is the test's
            assert life.poll() is None, (self.place.path / f"{self.folder}.txt").read_text()[-3000:]
            if with_reaper:
                kill_reaper(life.pid)
        finally:
            life.kill()
            life.wait()
        self.deaths[_where(events, before)] += 1
        self.check()

    def check(self) -> None:
        """Whatever is complete once stays as it was, to the byte."""
        if not (self.place.path / self.folder / "matrix.json").exists():
            return
        now = {cell.result.id: _digest(cell) for cell in self.cells() if cell.complete}
        assert now.items() >= self.complete.items(), "a complete cell is gone or has changed"
        self.complete = now

    def cells(self) -> list[StoredCell]:
        """What the folder holds."""
        return ResultStore.open(self.place.path / self.folder).cells()


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _where(events: Path, before: int) -> str:
    """In which part of its life it died."""
    if not events.exists():
        return "start-up"
    told = [orjson.loads(line)["event"] for line in events.read_bytes().splitlines()[before:]]
    for event in reversed(told):
        if event in ("cell.started", "cell.phase"):
            return "in a cell"
        if event == "cell.finished":
            return "between cells"
        if event in ("deployment.started", "server.starting"):
            return "servers start"
    return "start-up"


def _digest(cell: StoredCell) -> str:
    content = [(cell.dir / name).read_bytes() for name in ("cell.json", "requests.jsonl")]
    return hashlib.sha256(b"".join(content)).hexdigest()


def _requests(cell: StoredCell, tenant: str) -> dict[str, tuple[object, ...]]:
    """What of a tenant's requests the seed decides, by id."""
    found = [each for each in cell.records() if each.tenant == tenant]
    intended = tenant == "feed"
    told = {
        each.id: (
            each.phase, each.prompt_tokens, each.output_tokens, each.error,
            each.intended_ns if intended else None,
        )
        for each in found
    }  # fmt: skip
    assert len(told) == len(found), "a request has two records"
    return told


def _compare(killed: Killed, undisturbed: Killed, cells: int) -> None:
    """Both sweeps have the same cells, with the same requests."""
    found = {cell.result.id: cell for cell in killed.cells()}
    expected = {cell.result.id: cell for cell in undisturbed.cells()}
    assert found.keys() == expected.keys()
    assert len(expected) == cells
    folders = [path.name for path in (killed.place.path / killed.folder / "cells").iterdir()]
    assert sorted(folders) == sorted(expected), "a cell is there twice, or a part of one is left"
    for id_, cell in expected.items():
        assert found[id_].result.fingerprint == cell.result.fingerprint
        assert found[id_].result.status.value == "ok"
        assert _requests(found[id_], "feed") == _requests(cell, "feed")
        one, other = _requests(found[id_], "talk"), _requests(cell, "talk")
        both = one.keys() & other.keys()
        assert len(both) == min(len(one), len(other))
        assert both or cell.result.key.tenant == "feed"
        assert {each: one[each] for each in both} == {each: other[each] for each in both}
    assert killed.prompts() == undisturbed.prompts()


def _stage(place: Workplace) -> None:
    place.write("moment.yaml", SCENARIO)
    launcher = (ROOT / "launchers" / "virtual.yaml").read_text()
    place.write(
        "noting.yaml",
        launcher.replace(
            "  - -m\n  - fairshare.virtual.server\n",
            f"  - {ROOT / 'tests' / 'chaos' / 'noting_server.py'}\n",
        )
        + f"env: {{PYTHONPATH: {ROOT}}}\n",
    )


def _live_on(killed: Killed, seed: int, kills: int) -> None:
    """A whole sweep, in one life more than it is killed times."""
    source = random.Random(seed)
    for _ in range(kills):
        killed.live_and_die(source)
    killed.finish("--resume")
    killed.check()


def _killed_often(
    place: Workplace, *, sweeps: int, kills: int, load_scales: str, rounds: int, at_once: int
) -> None:
    """So many sweeps, each killed so often, against one that nobody disturbed."""
    _stage(place)
    undisturbed = Killed(place, load_scales, rounds, "undisturbed")
    killed = [Killed(place, load_scales, rounds, f"out{number}") for number in range(sweeps)]
    with ThreadPoolExecutor(at_once) as pool:
        lives = [pool.submit(undisturbed.finish)]
        lives += [pool.submit(_live_on, each, SEED + i, kills) for i, each in enumerate(killed)]
        for life in lives:
            life.result()
    for each in killed:
        print(f"{each.folder} was killed {dict(each.deaths)}")
        _compare(each, undisturbed, 3 * rounds * len(load_scales.split(",")))


def test_killed_sweeps_resume_to_the_undisturbed_one(workplace: Workplace) -> None:
    """Two sweeps of 12 cells, each killed at five seeded moments, end as if nobody had done it."""
    _killed_often(workplace, sweeps=2, kills=5, load_scales="1,2", rounds=2, at_once=3)


@pytest.mark.full
def test_sixty_cells_survive_two_hundred_kills(workplace: Workplace) -> None:
    """Ten sweeps of 60 cells, each killed at 20 seeded moments, lose and repeat nothing."""
    _killed_often(workplace, sweeps=10, kills=20, load_scales="1,2,3,4", rounds=5, at_once=3)
