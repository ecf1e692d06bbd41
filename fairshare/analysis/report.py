"""One HTML page that needs nothing else: no network, no script, whatever the names contain."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from fairshare.analysis.aggregate import Setting
from fairshare.analysis.model import Analysis, Drawn, Outcome
from fairshare.analysis.searched import Searched
from fairshare.analysis.summary import DEFINITIONS
from fairshare.analysis.table import BEST, FEW, Table, visible
from fairshare.analysis.verdict import Finding
from fairshare.results import ResultStore
from fairshare.results.files import read_bytes

_MOST_FACTS = 300
_LONGEST_COMMAND = 20_000


@dataclass(frozen=True, slots=True)
class ServerCommand:
    """How servers were started, and where in the result folder that is written."""

    text: str
    places: list[str]


def render(
    store: ResultStore,
    analysis: Analysis,
    *,
    tables: Sequence[Table],
    interactions: Sequence[Table],
    policies: Sequence[Table],
    findings: Sequence[tuple[Setting, Sequence[Finding]]],
    outcomes: Sequence[Outcome],
    figures: Sequence[Drawn],
    searched: Searched | None = None,
) -> str:
    """The page. Every value is escaped; figures are inlined.

    Raises:
        ResultsError: a figure cannot be read.
    """
    environment = Environment(
        loader=PackageLoader("fairshare.analysis"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    environment.filters["width"] = _width
    environment.filters["inline"] = _inline
    return environment.get_template("report.html.j2").render(
        name=analysis.name,
        badges=_badges(analysis),
        tables=tables,
        interactions=interactions,
        policies=policies,
        searched=searched,
        impossible=[cell for cell in analysis.measured if cell.plausibility.violations],
        unchecked=_unchecked(analysis),
        findings={visible(setting.label): some for setting, some in findings},
        figures=figures,
        outcomes=outcomes,
        worked=sum(outcome.worked for outcome in outcomes),
        commands=server_commands(store),
        facts=list(_facts(analysis.matrix))[:_MOST_FACTS],
        definitions=DEFINITIONS,
        best=BEST,
        few=FEW,
    )


def server_commands(store: ResultStore) -> list[ServerCommand]:
    """The ``.cmd`` files of all servers, equal ones brought together.

    Links are passed over: a result folder shows what is in it, not what it points to.
    """
    found: dict[str, list[str]] = {}
    for path in sorted(store.dir.rglob("*.cmd")):
        if path.is_symlink() or not path.is_file():
            continue
        with path.open("rb") as file:
            text = file.read(_LONGEST_COMMAND).decode("utf-8", "replace").strip()
        found.setdefault(text, []).append(str(path.relative_to(store.dir)))
    return [ServerCommand(text, places) for text, places in found.items()]


def _badges(analysis: Analysis) -> list[str]:
    """Provenance and marks of any figure on the page, each once."""
    provenance = {cell.result.provenance.value: None for cell in analysis.measured}
    marks = {mark.value: None for cell in analysis.measured for mark in cell.marks}
    return [*provenance, *marks]


def _unchecked(analysis: Analysis) -> dict[str, int]:
    """Why cells were not held against a device's limits, and how many for each reason."""
    reasons = (cell.plausibility.unchecked for cell in analysis.measured)
    return Counter(reason for reason in reasons if reason is not None)


def _facts(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    """Nested values as lines of dotted names."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _facts(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        if all(not isinstance(inner, Mapping | list | tuple) for inner in value):
            yield name, ", ".join(map(str, value))
        else:
            for number, inner in enumerate(value):
                yield from _facts(inner, f"{name}[{number}]")
    elif value is not None:
        yield name, str(value)


def _width(figure: Drawn) -> int:
    """Width on the page in CSS pixels: text has one size in all figures."""
    pixels = int.from_bytes(read_bytes(figure.png)[16:20], "big")  # PNG's first chunk
    return round(pixels * 0.62)


def _inline(figure: Drawn) -> str:
    data = base64.b64encode(read_bytes(figure.png)).decode()
    return f"data:image/png;base64,{data}"
