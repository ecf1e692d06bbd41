"""The tenants of a gateway as a user writes them: terms and keys, in a file only he can read."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, RootModel, ValidationError

from fairshare.errors import SpecError
from fairshare.gateway.settings import TenantName, TenantTerms, complaints

_MAX_BYTES = 16 << 20


class WrittenTenant(TenantTerms):
    """A tenant's terms, and its key itself where it does not stand in a variable."""

    key: str | None = Field(None, min_length=8, repr=False)


class _File(RootModel[dict[TenantName, WrittenTenant | None]]):
    """All tenants by name."""


def read_tenants(path: Path) -> tuple[dict[str, TenantTerms], dict[str, str]]:
    """The tenants' terms, and the keys that stand in the file itself.

    Raises:
        SpecError: the file cannot be read, is wrong, or holds keys that others can read.
    """
    found, private = _load(path)
    try:
        written = {name: each or WrittenTenant() for name, each in _File(found).root.items()}
    except ValidationError as error:
        raise SpecError(f"{path} is no list of tenants", evidence=complaints(error)) from None
    keys = {name: each.key for name, each in written.items() if each.key is not None}
    if keys and not private:
        raise SpecError(f"{path} holds keys and can be read by others", hint=f"chmod 600 {path}")
    if both := [name for name, each in written.items() if each.key and each.key_env]:
        raise SpecError(f"{path}: {both[0]} has both a key and a key_env")
    terms = {
        name: TenantTerms.model_validate(each.model_dump(exclude={"key"}))
        for name, each in written.items()
    }
    return terms, keys


def _load(path: Path) -> tuple[Any, bool]:
    """What is in the file, and whether nobody but its owner can read it."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(_MAX_BYTES)
        found = yaml.safe_load(text)
    except OSError as error:
        raise SpecError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where is not None else ""
        # Not what stands there: it may be a key.
        raise SpecError(f"{path} is not YAML{line}") from None
    return found if found is not None else {}, not stat.S_IMODE(mode) & 0o077
