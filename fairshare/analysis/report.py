"""One HTML page that needs nothing else: no network, no script, whatever the names contain."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from fairshare.analysis.cell_views import CellView, cell_view
from fairshare.analysis.drift import drifts
from fairshare.analysis.interference import InterferenceMatrix
from fairshare.analysis.model import Analysis, Drawn, Outcome
from fairshare.analysis.searched import Searched
from fairshare.analysis.summary import DEFINITIONS
from fairshare.analysis.table import BEST, FEW, Table, visible
from fairshare.analysis.verdict import Answer
from fairshare.results import ResultStore
from fairshare.results.files import read_bytes

_MOST_FACTS = 300
_LONGEST_COMMAND = 20_000
_MOST_VIEWS = 60  # cells that have a section of their own; of more, each has a page on demand
# Kinds of figures by section, in the order of the page; kinds that are not here come last.
_PARTS = {
    "Trade-off": ("trade-off",),
    "Speed and tails": ("throughput", "tail-latency", "latency-ecdf"),
    "Interference in figures": ("slowdown", "aggressors"),
    "Fairness and service over time": (
        *("fairness", "service", "fairness-over-time", "response-time", "rounds"),
        *("waste", "counters"),
    ),
    "GPU and CPU while the cells ran": ("gpu", "resources"),
}
_REST = "More figures"


@dataclass(frozen=True, slots=True)
class ServerCommand:
    """How servers were started, and where in the result folder that is written."""

    text: str
    places: list[str]


@dataclass(frozen=True, slots=True)
class Part:
    """A section of figures."""

    title: str
    figures: tuple[Drawn, ...]

    @property
    def anchor(self) -> str:
        """Where the page shows it."""
        return self.title.lower().replace(" ", "-")


def render(
    store: ResultStore,
    analysis: Analysis,
    *,
    tables: Sequence[Table],
    interactions: Sequence[Table],
    policies: Sequence[Table],
    answers: Sequence[Answer],
    matrices: Sequence[InterferenceMatrix],
    outcomes: Sequence[Outcome],
    figures: Sequence[Drawn],
    searched: Searched | None = None,
) -> str:
    """The page. Every value is escaped; figures are inlined.

    Raises:
        ResultsError: a figure cannot be read.
    """
    whose = {name: None for answer in answers for name in answer.interactive}
    values = {
        **_told(store, analysis),
        "tables": tables,
        "interactions": interactions,
        "policies": policies,
        "searched": searched,
        "answers": answers,
        "whose": ", ".join(whose) if len(whose) <= 8 else f"{len(whose)} of them",
        "matrices": matrices,
        "parts": _parts(figures),
        "outcomes": outcomes,
        "worked": sum(outcome.worked for outcome in outcomes),
        "definitions": DEFINITIONS,
        "best": BEST,
        "few": FEW,
    }
    template = _environment().get_template("report.html.j2")
    return template.render(**values, contents=list(_contents(values)))


def _told(store: ResultStore, analysis: Analysis) -> dict[str, object]:
    """What the folder itself tells."""
    views = _views(store, analysis)
    return {
        "name": analysis.name,
        "device": _device(analysis),
        "badges": _badges(analysis),
        "impossible": [cell for cell in analysis.measured if cell.plausibility.violations],
        "unchecked": _unchecked(analysis),
        "drifts": [drift for drift in drifts(analysis.cells) if drift.told],
        "views": views,
        "anchors": {visible(view.cell.result.id): view.anchor for view in views},
        "commands": server_commands(store),
        "facts": list(_facts(analysis.matrix))[:_MOST_FACTS],
    }


def render_cell(view: CellView, name: str, figures: Sequence[Drawn]) -> str:
    """The page of one cell."""
    template = _environment().get_template("cell.html.j2")
    return template.render(view=view, name=name, figures=figures)


def _environment() -> Environment:
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
    return environment


def _contents(values: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """The sections that there are, for the links at the top."""
    parts = values["parts"]
    assert isinstance(parts, list)  # noqa: S101
    links = [(part.anchor, part.title) for part in parts]
    if values["impossible"]:
        yield "impossible", "Impossible figures"
    if values["searched"]:
        yield "searched", "What was searched"
    yield "verdict", "The verdict"
    yield from links[:1]
    for name, anchor, title in (
        ("tables", "figures", "All figures"),
        ("matrices", "interference", "Interference"),
    ):
        if values[name]:
            yield anchor, title
    yield from links[1:]
    for name in ("policies", "interactions"):
        if values[name]:
            yield name, name.capitalize()
    yield "cells", "Cells"
    yield "provenance", "Provenance"


def _parts(figures: Sequence[Drawn]) -> list[Part]:
    kinds = {kind: title for title, kinds in _PARTS.items() for kind in kinds}
    found: dict[str, list[Drawn]] = {title: [] for title in (*_PARTS, _REST)}
    for figure in figures:
        found[kinds.get(figure.name.split("_")[0], _REST)].append(figure)
    return [Part(title, tuple(drawn)) for title, drawn in found.items() if drawn]


def _views(store: ResultStore, analysis: Analysis) -> list[CellView]:
    """A view of each cell, unless there are too many for one page."""
    if len(analysis.cells) > _MOST_VIEWS:
        return []
    stored = {cell.result.id: cell for cell in store.cells()}
    return [
        cell_view(stored[cell.result.id], cell, f"cell-{number}")
        for number, cell in enumerate(analysis.cells, start=1)
    ]


def _device(analysis: Analysis) -> str:
    device = analysis.matrix.get("device")
    return str(device.get("name") or "") if isinstance(device, Mapping) else ""


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
