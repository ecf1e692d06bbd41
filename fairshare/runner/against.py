"""Predicted beside measured: every cell of a result folder simulated on the GPU that it ran on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fairshare.analysis.analyze import analyze
from fairshare.analysis.model import CellAnalysis, TenantMetrics
from fairshare.errors import FairshareError
from fairshare.records import CellStatus, Mark, Provenance
from fairshare.results.store import ResultStore, StoredCell
from fairshare.runner.calibration import HEEDED, engine_of, measured_gpu, simulated_model
from fairshare.runner.predict import predict
from fairshare.runner.rerun import replay
from fairshare.runner.settings import Flags
from fairshare.virtual.physics import Constants

_NO_GPU = {
    Provenance.IMPORTED: "imported: its file does not tell the engine and the requests' schedule",
    Provenance.MEASURED_ON_CPU: "measured on cpu: only GPUs are simulated",
}

_INTERVALS = {
    "output tok/s": "output_tokens_per_s",
    "TTFT P50": "ttft_p50_s",
    "TPOT P50": "tpot_p50_s",
    "E2E P50": "e2e_p50_s",
}


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure of one tenant (None: of all) in one cell."""

    cell: str
    tenant: str | None
    figure: str
    measured: float
    predicted: float
    provenance: Provenance
    """Of what stands as measured: it may have been simulated itself."""
    unvalidated: bool
    """Whether the prediction rests on what was never compared with a real device."""
    interval: tuple[float, float] | None = None
    """Where the measured figure lies with 95 % confidence, by its own run."""

    @property
    def error(self) -> float:
        """Predicted over measured, less one."""
        return self.predicted / self.measured - 1

    @property
    def within(self) -> bool:
        """Whether the measurement cannot tell the prediction from itself."""
        return self.interval is not None and self.interval[0] <= self.predicted <= self.interval[1]


@dataclass(frozen=True, slots=True)
class Unpredicted:
    """A measured cell that could not be simulated, and why."""

    cell: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Place:
    """What stands for the device and the model that were measured."""

    device: str
    model: str | None
    constants: Constants


def predict_against(
    folder: Path, into: Path, *, gpu: str | None, model: str | None, constants: Constants
) -> tuple[list[Compared], list[Unpredicted]]:
    """Simulate each cell that was measured to its end, in result folders below ``into``.

    Every other cell is among those that could not be.

    Raises:
        ResultsError: a folder cannot be used.
        SpecError: nothing is known of the GPU.
    """
    store = ResultStore.open(folder)
    cells = {cell.result.id: cell for cell in store.cells()}
    reasons = {id_: reason for id_, cell in cells.items() if (reason := _why_not(cell))}
    missing = [Unpredicted(cells[id_].result.key.slug, reason) for id_, reason in reasons.items()]
    missing += [Unpredicted(id_, "not measured yet") for id_ in _planned(store) if id_ not in cells]
    if len(reasons) == len(cells):
        return [], missing
    on = _Place(f"virtual:{measured_gpu(store, gpu).name}", model, constants)
    measured = {cell.result.id: cell for cell in analyze(store).cells}
    compared: list[Compared] = []
    for id_, stored in cells.items():
        if id_ in reasons:
            continue
        try:
            found = _predicted(store, stored, into / stored.dir.name, on)
        except FairshareError as error:
            missing.append(Unpredicted(stored.result.key.slug, str(error).splitlines()[0]))
            continue
        compared += _compare(measured[stored.result.id], found)
    return compared, missing


def _planned(store: ResultStore) -> Iterator[str]:
    """The cells that the run was to have."""
    for deployment in store.matrix.get("plan", []):
        if isinstance(deployment, dict) and isinstance(ids := deployment.get("cells"), list):
            yield from map(str, ids)


def _why_not(stored: StoredCell) -> str | None:
    """Why there is nothing to hold a prediction against, if so."""
    result = stored.result
    if not stored.complete:
        return "not measured to its end"
    if result.status is not CellStatus.OK:
        reason = (result.reason or "").splitlines()
        return f"{result.status.value}: {reason[0]}" if reason else result.status.value
    return _NO_GPU.get(result.provenance)


def _predicted(store: ResultStore, stored: StoredCell, into: Path, on: _Place) -> CellAnalysis:
    args, measured_model = engine_of(stored)
    flags = Flags(
        device=on.device,
        launcher="virtual",
        model=on.model or simulated_model(measured_model),
        engine_args={name: args[name] for name in HEEDED if args.get(name) is not None},
    )
    settings, plan, _ = replay(store.dir, stored.result.id, flags, elsewhere=True)
    predict(settings, plan, into, request={"against": str(store.dir)}, constants=on.constants)
    [cell] = analyze(ResultStore.open(into)).cells
    if cell.result.status is not CellStatus.OK:
        raise FairshareError(f"{cell.result.status.value}: {cell.result.reason}")
    return cell


def _compare(measured: CellAnalysis, predicted: CellAnalysis) -> Iterator[Compared]:
    by_name = {metrics.tenant: metrics for metrics in predicted.rows()}
    for metrics in measured.rows():
        other = by_name.get(metrics.tenant)
        if other is None:
            continue
        for figure, was in _figures(metrics).items():
            now = _figures(other)[figure]
            if was and now:
                yield Compared(
                    cell=measured.result.key.slug,
                    tenant=metrics.tenant,
                    figure=figure,
                    measured=was,
                    predicted=now,
                    provenance=measured.result.provenance,
                    unvalidated=Mark.UNVALIDATED in predicted.marks,
                    interval=_interval(metrics, figure),
                )


def _interval(metrics: TenantMetrics, figure: str) -> tuple[float, float] | None:
    found = metrics.intervals.get(_INTERVALS[figure])
    return None if found is None else (found.low, found.high)


def _figures(metrics: TenantMetrics) -> dict[str, float | None]:
    latency = metrics.latency
    return {
        "output tok/s": metrics.output_tokens_per_s,
        "TTFT P50": latency["ttft"].p50,
        "TPOT P50": latency["tpot"].p50,
        "E2E P50": latency["e2e"].p50,
    }
