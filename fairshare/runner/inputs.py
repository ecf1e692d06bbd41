"""The files that a scenario names: what is in them defines its cells, not where they lie."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fairshare.errors import Location, SpecError
from fairshare.spec.scenario import Scenario
from fairshare.workload.files import resolve

_DIGITS = 16
_ADAPTER_FILE = "adapter_config.json"


def input_digests(scenario: Scenario, base_dir: Path) -> dict[str, str]:
    """Each file of prompts, trace and adapter, as the scenario writes its path, with a digest.

    Of an adapter's folder that is of its configuration and the sizes of its files: weights are
    large.

    Raises:
        SpecError: one cannot be read.
    """
    return {each: _digest(resolve(each, base_dir)) for each in named_paths(scenario)}


def named_paths(scenario: Scenario) -> list[str]:
    """Files of prompts and traces and folders of adapters, as the scenario writes them."""
    return sorted(set(_paths(scenario.model_dump(mode="json"))))


def _paths(value: Any) -> Iterator[str]:
    """Paths anywhere in a scenario: every field of a spec that names a file is called so."""
    if isinstance(value, list):
        for each in value:
            yield from _paths(each)
    elif isinstance(value, dict):
        for name, each in value.items():
            if name in ("path", "adapter") and isinstance(each, str):
                yield each
            else:
                yield from _paths(each)


def _digest(path: Path) -> str:
    try:
        if path.is_dir():
            return _of_folder(path)
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:_DIGITS]
    except OSError as error:
        reason = error.strerror or str(error)
        raise SpecError(f"cannot be read: {reason}", where=Location(path)) from None


def _of_folder(folder: Path) -> str:
    known = hashlib.sha256()
    for path in sorted(each for each in folder.iterdir() if each.is_file()):
        known.update(f"{path.name} {path.stat().st_size}\n".encode())
        if path.name == _ADAPTER_FILE:
            known.update(path.read_bytes())
    return known.hexdigest()[:_DIGITS]
