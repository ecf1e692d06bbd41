"""The best splits as a table for people, and as files for other tools."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from fairshare.analysis.aggregate import Setting
from fairshare.analysis.split_answers import MEANING, Best, Goal, SplitAnswer
from fairshare.analysis.stats import CONFIDENCE
from fairshare.analysis.table import (
    ABSENT,
    TOTAL,
    Column,
    Table,
    TableCell,
    TableRow,
    format_number,
    format_percent,
    visible,
)

FORMAT_VERSION = 1
RULE = (
    "; ".join(f"{goal.value}: {meaning}" for goal, meaning in MEANING.items())
    + ". Margin: the best split less the next, paired by repetition, with its 95 % interval "
    "(Student's t); beyond doubt if that of every other split lies above 0."
)
_FORMS: dict[Goal, Callable[[float], str]] = {
    Goal.WORST: format_percent,
    Goal.TOTAL: lambda value: f"{format_number(value)} tok/s",
}
_PLAIN = {
    "goal": "what the split is judged by",
    "best split": "shares of the tenants in the order of the scenario",
    "value": "what it reached, the mean over repetitions",
    "next": "the split that comes nearest",
    "margin": "by how much the best one is ahead of it",
    "splits": "how many were measured",
    "answer": "whether the others are told apart",
}
_COLUMNS = tuple(Column(name, "", format_number, meaning) for name, meaning in _PLAIN.items())


def split_tables(answers: Sequence[SplitAnswer]) -> list[Table]:
    """One table per scenario and load, a row per mode and goal."""
    settings = dict.fromkeys(_setting(answer) for answer in answers)
    return [
        Table(
            title=f"{visible(setting.label)}: how to split the device",
            columns=_COLUMNS,
            rows=tuple(
                _row(answer, best)
                for answer in answers
                if _setting(answer) == setting
                for best in answer.best
            ),
        )
        for setting in settings
    ]


def split_csv(answers: Sequence[SplitAnswer]) -> bytes:
    """One line per split."""
    lines = [line for answer in answers for line in _lines(answer)]
    names = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue().encode("utf-8", "replace")


def split_json(answers: Sequence[SplitAnswer]) -> bytes:
    """Every answer with its splits, and by how much the best is ahead of each other one."""
    document = {
        "format_version": FORMAT_VERSION,
        "confidence": CONFIDENCE,
        "goals": {goal.value: meaning for goal, meaning in MEANING.items()},
        "answers": [
            {
                **_place(answer),
                "best": [_told(best) for best in answer.best],
                "splits": _lines(answer),
            }
            for answer in answers
        ],
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _setting(answer: SplitAnswer) -> Setting:
    return Setting(answer.scenario, answer.load_scale, answer.concurrency)


def _row(answer: SplitAnswer, best: Best) -> TableRow:
    form = _FORMS[best.goal]
    following = best.rivals[0] if best.rivals else None
    margin = TableCell(ABSENT)
    if following is not None:
        interval = following.interval
        span = (
            f"{_signed(interval.low, form)} to {_signed(interval.high, form)}" if interval else ""
        )
        margin = TableCell(form(following.ahead), span)
    return TableRow(
        mode=visible(answer.mode),
        tenant=TOTAL,
        total=True,
        baseline=False,
        figures=(
            TableCell(best.goal.value),
            TableCell(visible(best.split.shares)),
            TableCell(form(best.split.value(best.goal))),
            TableCell(visible(following.shares) if following else ABSENT),
            margin,
            TableCell(str(len(answer.splits))),
            TableCell(visible(best.says)),
        ),
        provenance=answer.provenance.value,
        marks=tuple(mark.value for mark in best.split.marks),
        notes=(),
        repetitions=len(best.split.values[best.goal]),
        errors="",
    )


def _signed(value: float, form: Callable[[float], str]) -> str:
    return form(value) if value >= 0 else f"-{form(-value)}"


def _place(answer: SplitAnswer) -> dict[str, Any]:
    return {
        "scenario": answer.scenario,
        "concurrency": answer.concurrency,
        "load_scale": answer.load_scale,
        "mode": answer.mode,
        "provenance": answer.provenance.value,
    }


def _lines(answer: SplitAnswer) -> list[dict[str, Any]]:
    return [
        {
            **_place(answer),
            "shares": split.shares,
            "repetitions": max(len(values) for values in split.values.values()),
            "marks": " ".join(mark.value for mark in split.marks),
            **{_name(goal): split.value(goal) for goal in split.values},
            **{f"goodput_per_s:{name}": rate for name, rate in split.goodput_per_s.items()},
            "best_for": ", ".join(b.goal.value for b in answer.best if b.split is split),
        }
        for split in answer.splits
    ]


def _name(goal: Goal) -> str:
    return {Goal.WORST: "worst_goodput_share", Goal.TOTAL: "output_tokens_per_s"}[goal]


def _told(best: Best) -> dict[str, Any]:
    return {
        "goal": best.goal.value,
        "shares": best.split.shares,
        "value": best.split.value(best.goal),
        "answer": best.says,
        "ahead_of": [
            {
                "shares": rival.shares,
                "by": rival.ahead,
                "interval": rival.interval and [rival.interval.low, rival.interval.high],
                "beyond_doubt": rival.told_apart,
            }
            for rival in best.rivals
        ],
    }
