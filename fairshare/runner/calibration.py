"""Calibrating the simulated GPU with what a run has measured, and keeping the outcome in a file."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import orjson
import yaml

from fairshare.analysis.calibrate import (
    Calibration,
    Measured,
    Served,
    calibrate,
    measured_requests,
)
from fairshare.devices.constants import GpuSpec, gpu_spec, spec_of_product
from fairshare.errors import Location, ResultsError, SpecError
from fairshare.records import CellStatus, Mode
from fairshare.results import layout
from fairshare.results.files import write_atomic, writing
from fairshare.results.store import ResultStore, StoredCell
from fairshare.virtual.deployed import GpuFigures
from fairshare.virtual.engine import Limits
from fairshare.virtual.memory import StartError, plan_memory
from fairshare.virtual.models import VirtualModel, model_names, virtual_model
from fairshare.virtual.physics import PUBLISHED, Constants

FILE = "calibration.json"
# Arguments of an engine that the simulated one heeds.
HEEDED = (
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "enforce_eager",
    "enable_prefix_caching",
)
FORMAT_VERSION = 1
_KEPT = ("compute_efficiency", "memory_efficiency", "front_end_s")
_SEQUENCES, _BATCHED_TOKENS = 256, 2048  # vLLM's, where the launcher states none


def calibrate_folder(
    folder: Path, gpu: str | None, model: str | None
) -> tuple[Calibration, Path, list[str]]:
    """Fit the constants to all exclusive cells of a result folder; they are kept in a file there.

    Returns them, the file, and where the cells come from: a fit to what was simulated is no
    evidence.

    ``gpu`` and ``model`` are names of the simulated ones, where the folder's own are not enough.

    Raises:
        ResultsError: nothing was measured alone, or too little.
        SpecError: the GPU or the model is not known.
    """
    store = ResultStore.open(folder)
    spec = measured_gpu(store, gpu)
    alone = _alone(store)
    cells = [_served(cell, spec, model) for cell in alone]
    provenance = sorted({cell.result.provenance.value for cell in alone})
    found = calibrate(cells)
    path = folder / layout.ANALYSIS / FILE
    document = {
        "format_version": FORMAT_VERSION,
        "gpu": spec.name,
        "models": sorted({served.model.name for served, _ in cells}),
        "requests": found.requests,
        "provenance": provenance,
        "constants": {name: getattr(found.constants, name) for name in _KEPT},
        "held_out": asdict(found.held_out),
        "fitted": asdict(found.fitted),
        "uncalibrated": asdict(found.uncalibrated),
    }
    with writing(path):
        path.parent.mkdir(exist_ok=True)
    write_atomic(path, orjson.dumps(document, option=orjson.OPT_INDENT_2))
    return found, path, provenance


def calibrated(path: Path) -> Constants:
    """The constants in a file that ``fairshare calibrate`` wrote, or in a result folder.

    Raises:
        SpecError: there is no such file, or it is another.
    """
    file = path / layout.ANALYSIS / FILE if path.is_dir() else path
    hint = "give the folder that `fairshare calibrate` was run on, or the file that it named"
    try:
        values = _constants_in(orjson.loads(file.read_bytes()))
    except OSError as error:
        raise SpecError(f"cannot read {file}: {error.strerror}", hint=hint) from None
    except (ValueError, KeyError, TypeError) as error:
        raise SpecError(f"{file} holds no calibration: {error}", hint=hint) from None
    return replace(PUBLISHED, **values)


def _constants_in(document: Any) -> dict[str, float]:
    if document["format_version"] != FORMAT_VERSION:
        raise ValueError(f"format version {document['format_version']!r}")
    return {name: float(document["constants"][name]) for name in _KEPT}


def measured_gpu(store: ResultStore, named: str | None) -> GpuSpec:
    """The GPU of a run, as the catalogue knows it.

    Raises:
        SpecError: it has none by that name, or the run was not on a GPU.
    """
    if named is not None:
        return gpu_spec(named.removeprefix("virtual:"))
    device: dict[str, Any] = store.matrix.get("device") or {}
    name = device.get("name")
    found = spec_of_product(str(name))
    if found is None:
        raise SpecError(
            f"nothing is known of the device {name!r}"
            if name
            else f"{store.dir} does not say on which device it was measured",
            hint="name the one it is most like with --device virtual:NAME (fairshare list device)",
        )
    return found


def simulated_model(name: str) -> str:
    """The simulated model that stands for a model of any name or path.

    Raises:
        SpecError: none is known to be the same.
    """
    known = Path(name).name.lower()
    if known in model_names():
        return known
    raise SpecError(
        f"the simulated GPU does not know the model {name!r}",
        hint=f"name the one it is most like with --model: {', '.join(model_names())}",
    )


def _alone(store: ResultStore) -> list[StoredCell]:
    cells = [
        cell
        for cell in store.cells()
        if cell.complete
        and cell.result.status is CellStatus.OK
        and cell.result.key.mode is Mode.EXCLUSIVE
    ]
    if not cells:
        raise ResultsError(
            f"{store.dir} has no cell in which a tenant was alone on the device",
            hint="run the scenario with --modes exclusive",
        )
    return cells


def _served(cell: StoredCell, gpu: GpuSpec, model: str | None) -> tuple[Served, list[Measured]]:
    args, name = engine_of(cell)
    found = virtual_model(model or simulated_model(name))
    served = Served(
        GpuFigures.of(gpu), found, _limits(args, gpu, found), bool(args.get("enforce_eager"))
    )
    return served, measured_requests(list(cell.records()))


def engine_of(cell: StoredCell) -> tuple[dict[str, Any], str]:
    """The engine's arguments in a cell, and the model that its first server had.

    Raises:
        ResultsError: the cell's own file does not say.
    """
    path = cell.dir / layout.CONFIG
    try:
        config = yaml.safe_load(path.read_text("utf-8"))
        return dict(config["launcher"]["args"]), str(config["plan"]["slots"][0]["model"])
    except (OSError, KeyError, TypeError, IndexError, yaml.YAMLError) as error:
        raise ResultsError(f"cannot be read: {error}", where=Location(path)) from None


def _limits(args: dict[str, Any], gpu: GpuSpec, model: VirtualModel) -> Limits:
    try:
        memory = plan_memory(
            model,
            total_bytes=gpu.memory_bytes,
            free_bytes=gpu.memory_bytes,
            max_model_len=args.get("max_model_len") or model.max_model_len,
            utilization=args.get("gpu_memory_utilization"),
            kv_bytes=None,
        )
    except StartError as error:
        raise SpecError(
            f"{model.name} does not fit a simulated {gpu.name}: {str(error).partition('. ')[0]}",
            hint="the model or the GPU is another: name them with --model and --device",
        ) from None
    return Limits(
        args.get("max_num_seqs") or _SEQUENCES,
        args.get("max_num_batched_tokens") or _BATCHED_TOKENS,
        memory.kv_blocks,
    )
