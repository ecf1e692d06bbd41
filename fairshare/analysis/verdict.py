"""The answer: per goal the mode to run, by how much it is ahead, and how sure that is.

Modes compete where their figures have the same origin; a winner's interval must be clear of all
rivals'; what is not known is said (docs/adr/0015-a-verdict-per-goal-and-origin.md).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np

from fairshare.analysis.aggregate import Setting
from fairshare.analysis.differences import Difference, Sample, difference
from fairshare.analysis.goals import Goal, goals
from fairshare.analysis.model import Analysis, CellAnalysis
from fairshare.analysis.slowdown import interactive
from fairshare.analysis.stats import Interval, t_interval
from fairshare.analysis.table import visible
from fairshare.records import Mark, Mode, Provenance

_MOST_ELSEWHERE = 6
_PLAIN = frozenset({Provenance.MEASURED})  # what needs no badge


class State(StrEnum):
    """How sure a verdict is."""

    CLEAR = "clear"  # its interval is clear of all rivals'
    CLOSE = "too close to call"  # intervals overlap
    UNSURE = "too few runs to tell"  # there is no interval to tell from
    ALIKE = "all alike"
    ALONE = "no rival"  # of figures of its origin
    MISSING = "not judged"


@dataclass(frozen=True, slots=True)
class Standing:
    """A mode's figure for a goal, over its repetitions."""

    mode: str
    provenance: Provenance
    marks: tuple[Mark, ...]
    samples: Mapping[int, Sample]
    most: float
    """The largest value that there is."""

    @property
    def value(self) -> float:
        """The mean over repetitions."""
        return float(np.mean([sample.value for sample in self.samples.values()]))

    @property
    def interval(self) -> Interval | None:
        """Across repetitions, or within the only one."""
        values = [sample.value for sample in self.samples.values()]
        found = t_interval(values) if len(values) > 1 else _only(self.samples).interval
        return None if found is None else found.within(0.0, self.most)

    @property
    def emulated(self) -> bool:
        """Whether the mode stands in for another."""
        return self.provenance is Provenance.EMULATED or self.mode.startswith("mig-emulated")


@dataclass(frozen=True, slots=True)
class Verdict:
    """One goal in one setting, among figures of one origin."""

    goal: Goal
    setting: Setting
    state: State
    ranked: tuple[Standing, ...] = ()
    """Best first."""
    margin: Difference | None = None
    """The runner-up's figure less the winner's, paired by repetition."""
    close: tuple[str, ...] = ()
    """The modes that are not told apart, best first."""
    without: tuple[str, ...] = ()
    """Modes of the same origin that have no such figure."""
    impossible: bool = False
    """Whether there is none because all that there were cannot be."""
    elsewhere: str = ""
    """Which mode wins at the scenario's other loads."""

    @property
    def winner(self) -> Standing | None:
        """The best figure; None where there is none."""
        return self.ranked[0] if self.ranked else None

    @property
    def answer(self) -> str:
        """What to run, in a few words."""
        if self.winner is None:
            return State.MISSING.value
        if self.state is State.ALIKE:
            return "any: all alike"
        if self.state is State.CLOSE:
            return f"too close to call: {', '.join(self.close)}"
        if self.state is State.UNSURE:
            return f"perhaps {self.winner.mode}"
        return self.winner.mode

    @property
    def brief(self) -> str:
        """The same without the names of all that are too close."""
        return State.CLOSE.value if self.state is State.CLOSE else self.answer

    @property
    def value(self) -> str:
        """The best figure."""
        return self.goal.form(self.goal.shown(self.winner.value)) if self.winner else ""

    @property
    def interval(self) -> str:
        """Its interval."""
        if self.winner is None:
            return ""
        return _span(self.goal.shown_interval(self.winner.interval), self.goal)

    @property
    def lead(self) -> str:
        """By how much it is ahead of whom: ``+123 (+12 %) over mps``."""
        if self.margin is None or len(self.ranked) < 2:
            return ""
        margin = self.goal.shown_difference(self.margin)
        ahead, base = abs(margin.change), margin.second
        part = f" ({ahead / base * 100:.1f} %)" if base else ""
        word = "more" if self.goal.more_is_better else "less"
        return f"{self.goal.form(ahead)}{part} {word} than {self.ranked[1].mode}"

    @property
    def lead_interval(self) -> str:
        """The interval of the lead; below 0 the runner-up would be the better one."""
        apart = self.goal.shown_difference(self.margin).interval if self.margin else None
        if apart is None:
            return ""
        ahead = Interval(-apart.high, -apart.low) if self.goal.more_is_better else apart
        return _span(ahead, self.goal)

    def as_json(self) -> dict[str, Any]:
        """For other tools: the modes best first, and what is known of the lead."""
        goal = self.goal
        margin = goal.shown_difference(self.margin) if self.margin else None
        return {
            "scenario": self.setting.scenario,
            "load_scale": self.setting.load_scale,
            "concurrency": self.setting.concurrency,
            "goal": goal.title,
            "compared": goal.compared,
            "state": self.state.value,
            "ranked": [
                {
                    "mode": each.mode,
                    "value": goal.shown(each.value),
                    "interval": goal.shown_interval(each.interval),
                }
                for each in self.ranked
            ],
            "close": list(self.close),
            "lead": abs(margin.change) if margin else None,
            "second_less_first": margin.interval if margin else None,
            "provenance": self.winner.provenance.value if self.winner else None,
            "badges": list(self.badges),
            "advice": self.advice,
        }

    @property
    def badges(self) -> tuple[str, ...]:
        """What must be known of the figures: origin, and the marks of winner and runner-up."""
        found: dict[str, None] = {}
        for standing in self.ranked[:2]:
            if standing.provenance not in _PLAIN:
                found[standing.provenance.value] = None
            if standing.emulated:
                found[Provenance.EMULATED.value] = None
            found |= {mark.value: None for mark in standing.marks}
        return tuple(found)

    @property
    def advice(self) -> str:
        """What makes it surer, or gets it at all; and which modes could not compete."""
        if self.impossible:
            return "no device can do what the figures say: the notes tell which, and why"
        if self.state is State.MISSING:
            return self.goal.missing
        absent = f"no such figure of {', '.join(self.without)}: {self.goal.missing}"
        return "; ".join(filter(None, (self._surer, absent if self.without else "")))

    @property
    def _surer(self) -> str:
        if self.state is State.UNSURE:
            return "add --num-runs 3 for an interval"
        if self.state is State.CLOSE:
            return "more runs (--num-runs) or longer ones (--window) narrow the intervals"
        if self.state is State.ALONE and not self.without:
            return "no other mode's figures are of this origin"
        return ""


@dataclass(frozen=True, slots=True)
class Answer:
    """All goals of one scenario at its highest load."""

    scenario: str
    setting: Setting
    lines: tuple[Verdict, ...]
    left_out: tuple[str, ...]
    """Modes whose figures are impossible."""
    interactive: tuple[str, ...]
    """The tenants whose tail counts as interactive."""

    @property
    def title(self) -> str:
        """The setting, for people."""
        return visible(self.setting.label)


def answers(analysis: Analysis, price_per_hour: float | None = None) -> list[Answer]:
    """One answer per scenario, of its highest load; what holds at others stands beside it."""
    cells: dict[str, dict[Setting, list[CellAnalysis]]] = {}
    for cell in analysis.measured:
        key = cell.result.key
        setting = Setting(key.scenario, key.load_scale, key.concurrency)
        cells.setdefault(key.scenario, {}).setdefault(setting, []).append(cell)
    asked = goals(price_per_hour)
    return [_answer(scenario, found, asked) for scenario, found in cells.items()]


def _answer(
    scenario: str, cells: Mapping[Setting, Sequence[CellAnalysis]], asked: Sequence[Goal]
) -> Answer:
    ordered = sorted(cells, key=lambda setting: (setting.load_scale, setting.concurrency or 0))
    busiest = ordered[-1]
    by_setting = {
        setting: [line for goal in asked for line in _verdicts(goal, setting, cells[setting])]
        for setting in ordered
    }
    others = ordered[:-1]
    lines = [
        replace(line, elsewhere=_elsewhere(line, [(o, by_setting[o]) for o in others]))
        for line in by_setting[busiest]
    ]
    left_out = {
        cell.result.mode_label: None for cell in cells[busiest] if Mark.IMPOSSIBLE in cell.marks
    }
    whose = {str(row.tenant): None for c in cells[busiest] if c.total for row in interactive(c)}
    return Answer(scenario, busiest, tuple(lines), tuple(left_out), tuple(whose))


def _verdicts(goal: Goal, setting: Setting, cells: Sequence[CellAnalysis]) -> Iterator[Verdict]:
    """One verdict per origin of figures; one that says why where there are no figures."""
    standings = _standings(goal, cells)
    origins = list(dict.fromkeys(standing.provenance for standing in standings))
    for origin in origins:
        rivals = [s for s in standings if s.provenance is origin]
        yield replace(
            _ranked(goal, setting, rivals),
            without=_without(cells, {s.mode for s in rivals}, origin),
        )
    if not origins:
        yield Verdict(goal, setting, State.MISSING, impossible=any(_figures(goal, cells)))


def _without(
    cells: Sequence[CellAnalysis], ranked: Collection[str], origin: Provenance
) -> tuple[str, ...]:
    """Who has no figure, for another reason than that it is impossible."""
    modes = {
        visible(cell.result.mode_label): None
        for cell in cells
        if cell.result.provenance is origin
        and cell.result.key.mode is not Mode.EXCLUSIVE
        and Mark.IMPOSSIBLE not in cell.marks
    }
    return tuple(mode for mode in modes if mode not in ranked)


def _competing(cells: Sequence[CellAnalysis]) -> list[CellAnalysis]:
    return [cell for cell in cells if cell.result.key.mode is not Mode.EXCLUSIVE]


def _figures(goal: Goal, cells: Sequence[CellAnalysis]) -> Iterator[bool]:
    """Whether each cell has a figure, possible or not."""
    return (goal.sample(cell) is not None for cell in _competing(cells))


def _standings(goal: Goal, cells: Sequence[CellAnalysis]) -> list[Standing]:
    found: dict[tuple[str, Provenance], list[CellAnalysis]] = {}
    for cell in _competing(cells):
        identity = (cell.result.mode_label, cell.result.provenance)
        found.setdefault(identity, []).append(cell)
    made = []
    for (mode, provenance), own in found.items():
        marks = tuple(dict.fromkeys(mark for cell in own for mark in cell.marks))
        samples = {
            cell.result.key.repetition: sample
            for cell in own
            if (sample := goal.sample(cell)) is not None
        }
        if samples and Mark.IMPOSSIBLE not in marks:
            made.append(Standing(visible(mode), provenance, marks, samples, goal.most))
    return made


def _ranked(goal: Goal, setting: Setting, standings: Sequence[Standing]) -> Verdict:
    ranked = tuple(sorted(standings, key=lambda standing: standing.value, reverse=goal.higher))
    if len(ranked) == 1:
        return Verdict(goal, setting, State.ALONE, ranked)
    best = ranked[0]
    margin = difference(best.samples, ranked[1].samples)
    if all(standing.value == best.value for standing in ranked):
        return Verdict(goal, setting, State.ALIKE, ranked)
    apart = [_apart(best, other) for other in ranked[1:]]
    state = State.CLEAR
    if any(each is None for each in apart):
        state = State.UNSURE
    elif not all(apart):
        state = State.CLOSE
    close = [s.mode for s, each in zip(ranked[1:], apart, strict=True) if not each]
    return Verdict(goal, setting, state, ranked, margin, (best.mode, *close))


def _apart(one: Standing, other: Standing) -> bool | None:
    """Whether their intervals do not overlap; None where one of them has none."""
    mine, theirs = one.interval, other.interval
    if mine is None or theirs is None:
        return None
    return mine.low > theirs.high or mine.high < theirs.low


def _elsewhere(line: Verdict, others: Sequence[tuple[Setting, Sequence[Verdict]]]) -> str:
    """What the same goal says at other loads, in short."""
    told = []
    for setting, verdicts in others:
        same = [v for v in verdicts if v.goal is line.goal and _origin(v) is _origin(line)]
        told.append((_load(setting), same[0].brief if same else State.MISSING.value))
    if not told:
        return ""
    if all(answer == line.brief for _, answer in told):
        return f"the same at all {len(told) + 1} loads"
    text = "; ".join(f"{load}: {answer}" for load, answer in told[-_MOST_ELSEWHERE:])
    return f"{text}; ..." if len(told) > _MOST_ELSEWHERE else text


def _origin(verdict: Verdict) -> Provenance | None:
    return verdict.winner.provenance if verdict.winner else None


def _load(setting: Setting) -> str:
    parts = [f"concurrency {setting.concurrency}"] if setting.concurrency is not None else []
    parts += [f"load x{setting.load_scale:g}"] if setting.load_scale != 1.0 or not parts else []
    return ", ".join(parts)


def _only(samples: Mapping[int, Sample]) -> Sample:
    return next(iter(samples.values()))


def _span(interval: Interval | None, goal: Goal) -> str:
    if interval is None:
        return ""
    return f"{goal.form(interval.low)} to {goal.form(interval.high)}"
