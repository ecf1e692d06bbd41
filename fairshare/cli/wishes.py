"""What the command line says of a sweep, laid over its file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fairshare.cli.searching import search_of

if TYPE_CHECKING:
    from fairshare.runner.settings import Flags
    from fairshare.spec.matrix import Matrix

DEFAULT_MATRIX = "quick"
_FLAG_FIELDS = (
    "device",
    "gpu",
    "launcher",
    "model",
    "engine_args",
    "python",
    "allow_gpu_changes",
    "allow_gpu_reset",
    "allow_foreign",
)
_SWEEP_FLAGS = (
    "modes",
    "policies",
    "scheduling",
    "gateway_window",
    "concurrency",
    "load_scale",
    "num_runs",
    "order",
    "order_seed",
    "max_like_failures",
    "lock_clocks",
    "seed",
    "load_processes",
    "transport",
)
# Section of the matrix -> its entries, each with the flag that sets it.
_SECTION_FLAGS = {
    "mig": {"how": "mig", "layout": "mig_layout"},
    "mps": {"partitioning": "mps_partitioning"},
    "timeslice": {"policy": "timeslice_policy"},
}


def matrix_of(given: dict[str, Any]) -> Matrix:
    """The sweep file with the flags laid over it; scenarios alone need no file."""
    from fairshare.spec.loading import load_matrix, validate
    from fairshare.spec.matrix import Matrix

    base: dict[str, Any] = {}
    if given["matrix_name"] or not given["scenarios"]:
        matrix = load_matrix(given["matrix_name"] or DEFAULT_MATRIX)
        base = matrix.model_dump(exclude_unset=True)
    renamed = {"warmup": "warmup_s", "window": "window_s", "drain": "drain_s"}
    changes: dict[str, Any] = {}
    for name in (*_SWEEP_FLAGS, *renamed):
        if given.get(name) is not None:
            changes[renamed.get(name, name)] = given[name]
    policies = changes.get("policies") or base.get("policies")
    if given["policy_options"]:
        changes["policies"] = _with_options(policies or ["fcfs"], given["policy_options"])
    for section, flags in _SECTION_FLAGS.items():
        if said := {k: given[f] for k, f in flags.items() if given[f] is not None}:
            changes[section] = {**(base.get(section) or {}), **said}
    if (search := search_of(given, base.get("search"))) is not None:
        changes["search"] = search
    if given["scenarios"]:
        changes["scenarios"] = list(given["scenarios"])
        if given["matrix_name"] is None:
            changes["name"] = _result_name(given["scenarios"])
    matrix = validate({**base, **changes}, Matrix)
    _refuse_in_vain(given, matrix)
    return matrix


def _with_options(
    policies: list[Any], options: tuple[tuple[str, str, Any], ...]
) -> list[dict[str, Any]]:
    """The policies with the options that flags give them; each has its name in every flag."""
    made = [{"kind": each} if isinstance(each, str) else dict(each) for each in policies]
    for policy, name, value in options:
        of_it = [each for each in made if each["kind"] == policy]
        if not of_it:
            asked = ", ".join(dict.fromkeys(each["kind"] for each in made))
            raise click.UsageError(
                f"--policy-option {policy}.{name}: {policy} is not among the policies ({asked})"
            )
        for each in of_it:
            each[name] = value
    return made


def _refuse_in_vain(given: dict[str, Any], matrix: Matrix) -> None:
    """Flags about a mode that is not among the modes; each section is called as its mode."""
    modes = [mode.value for mode in matrix.modes]
    for section, flags in _SECTION_FLAGS.items():
        for flag in flags.values():
            if given[flag] is not None and section not in modes:
                raise click.UsageError(
                    f"--{flag.replace('_', '-')} is for mode {section}, and the modes are "
                    + ", ".join(modes)
                )


def _result_name(scenarios: tuple[str, ...]) -> str:
    names = "-".join(Path(name).stem for name in scenarios).lower()
    cleaned = "".join(c if c.isalnum() or c in "._-" else "-" for c in names).strip("._-")
    return cleaned[:48] or "matrix"


def flags_of(given: dict[str, Any]) -> Flags:
    """The flags that are no part of a sweep."""
    from fairshare.runner.settings import Flags

    values = {name: given[name] for name in _FLAG_FIELDS}
    values["engine_args"] = dict(given["engine_args"])
    return Flags(**values)
