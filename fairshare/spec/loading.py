"""From a YAML file to a checked spec; every complaint says file, line and column."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from fairshare import assets
from fairshare.errors import Location, SpecError
from fairshare.spec.base import Spec
from fairshare.spec.launcher import Launcher
from fairshare.spec.matrix import Matrix
from fairshare.spec.scenario import Scenario

T = TypeVar("T", bound=Spec)
SPECS: dict[str, type[Spec]] = {"scenario": Scenario, "launcher": Launcher, "matrix": Matrix}
_MAX_FILE_BYTES = 4 * 1024 * 1024
_SHOWN_ERRORS = 5


def load_scenario(name: str) -> tuple[Scenario, Path]:
    """A scenario by name or path, and its file (datasets are relative to it).

    Raises:
        SpecError: it does not exist or is wrong.
    """
    path = assets.find("scenario", name)
    return load(path, Scenario), path


def load_launcher(name: str) -> tuple[Launcher, Path]:
    """A launcher by name or path, and its file. Raises SpecError as :func:`load_scenario`."""
    path = assets.find("launcher", name)
    return load(path, Launcher), path


def load_matrix(name: str) -> Matrix:
    """A matrix by name or path. Raises SpecError as :func:`load_scenario`."""
    return load(assets.find("matrix", name), Matrix)


def load(path: Path, spec: type[T]) -> T:
    """The spec that ``path`` holds.

    Raises:
        SpecError: the file cannot be read, is not YAML, or does not say what it must.
    """
    root = _compose(path)
    raw = yaml.safe_load(path.read_text("utf-8")) if root is not None else None
    if not isinstance(raw, dict):
        raise SpecError(
            "the file must hold a mapping (key: value lines)", where=Location(path, 1, 1)
        )
    return validate(raw, spec, path=path, root=root)


def validate(
    raw: Mapping[str, Any], spec: type[T], *, path: Path | None = None, root: Any = None
) -> T:
    """Check a mapping that came from a file (``path``, ``root``) or from flags.

    Raises:
        SpecError: with the place of the first complaint, and up to five complaints in all.
    """
    try:
        return spec.model_validate(raw)
    except ValidationError as error:
        details = _without_union_noise(error.errors(include_url=False))
        first, *others = [_complaint(detail, spec, root) for detail in details]
        where = _locate(path, root, details[0]) if path else None
        evidence = [
            f"also, {_locate(path, root, detail)}: {text}" if path else f"also: {text}"
            for (text, _), detail in zip(others, details[1:], strict=True)
        ]
        message, hint = first
        raise SpecError(
            message, where=where, hint=hint, evidence=evidence[: _SHOWN_ERRORS - 1]
        ) from None


def _compose(path: Path) -> yaml.Node | None:
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise SpecError("the file is larger than 4 MiB", where=Location(path))
        text = path.read_text("utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        yaml.safe_load(text)  # constructs values too: bad dates, unhashable keys
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = Location(path, mark.line + 1, mark.column + 1) if mark else Location(path)
        problem = error.problem or error.context or "not valid"
        raise SpecError(f"not valid YAML: {problem}", where=where) from None
    except (yaml.YAMLError, ValueError) as error:
        raise SpecError(f"not valid YAML: {error}", where=Location(path)) from None
    except OSError as error:
        raise SpecError(f"cannot be read: {error.strerror}", where=Location(path)) from None
    if isinstance(root, yaml.Node):
        _refuse_duplicates(root, path)
    return root


def _refuse_duplicates(node: yaml.Node, path: Path) -> None:
    """YAML lets the second of two equal keys win silently; that hides a mistake."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    mark = key.start_mark
                    where = Location(path, mark.line + 1, mark.column + 1)
                    raise SpecError(f"{key.value!r} is given twice", where=where)
                seen.add(key.value)
            _refuse_duplicates(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_duplicates(item, path)


def _without_union_noise(details: list[ErrorDetails]) -> list[ErrorDetails]:
    """Unknown keys first: they are usually why a required key is missing."""
    return sorted(details, key=lambda detail: detail["type"] != "extra_forbidden")


def _written(root: Any, detail: ErrorDetails) -> list[str | int]:
    """The location as the user wrote it, without the union tags that pydantic mixes in."""
    if not isinstance(root, yaml.Node):
        return list(detail["loc"])
    node: yaml.Node | None = root
    steps: list[str | int] = []
    for step in detail["loc"]:
        found = _child(node, step)
        if found is not None:
            steps.append(step)
            node = found[1]
    if detail["type"] == "missing":
        steps.append(detail["loc"][-1])
    return steps


def _locate(path: Path | None, root: Any, detail: ErrorDetails) -> Location | None:
    """The deepest node of the document that lies on the way to the complaint."""
    if path is None:
        return None
    node: yaml.Node | None = root if isinstance(root, yaml.Node) else None
    mark = node.start_mark if node is not None else None
    for step in detail["loc"]:
        found = _child(node, step)
        if found is None:
            continue  # a union tag, or the missing key itself
        key, node = found
        unknown = detail["type"] == "extra_forbidden" and step == detail["loc"][-1]
        mark = key.start_mark if unknown and key is not None else node.start_mark
    return Location(path, mark.line + 1, mark.column + 1) if mark else Location(path)


def _child(node: yaml.Node | None, step: str | int) -> tuple[yaml.Node | None, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value == str(step):
                return key, value
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return None, node.value[step]
    return None


def _complaint(detail: ErrorDetails, spec: type[Spec], root: Any) -> tuple[str, str | None]:
    """What is wrong in a person's words, and what to do about it where that is known."""
    name = ".".join(str(step) for step in _written(root, detail))
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        known = _known_keys(spec, detail["loc"])
        close = difflib.get_close_matches(str(detail["loc"][-1]), known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted(known))}"
        return f"unknown key {name!r}", hint
    if kind == "missing":
        return f"{name!r} is missing", None
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        tags = str(context.get("expected_tags", "")).replace("'", "")
        return f"{name!r} needs a known kind", f"known kinds: {tags}"
    if kind in ("value_error", "assertion_error"):
        reason = str(context.get("error", detail["msg"]))
        return (f"{name}: {reason}" if name else reason), None
    shown = repr(detail.get("input"))
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return f"{name!r} is {shown}: {_lower_first(detail['msg'])}", None


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _known_keys(spec: type[Spec], location: Iterable[str | int]) -> list[str]:
    """The keys allowed beside an unknown one, found through the JSON Schema of the spec."""
    schema = spec.model_json_schema()
    node: dict[str, Any] = schema
    for step in list(location)[:-1]:
        node = _descend(_resolve(node, schema), step, schema)
    return list(_resolve(node, schema).get("properties", {}))


def _resolve(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    return node


def _descend(node: dict[str, Any], step: str | int, schema: dict[str, Any]) -> dict[str, Any]:
    if isinstance(step, str) and step in node.get("properties", {}):
        return dict(node["properties"][step])
    if isinstance(step, int) and "items" in node:
        return dict(node["items"])
    mapping = node.get("discriminator", {}).get("mapping", {})
    if step in mapping:
        return {"$ref": mapping[step]}
    for option in node.get("anyOf", ()):
        resolved = _resolve(option, schema)
        if found := _descend(resolved, step, schema):
            return found
    if isinstance(node.get("additionalProperties"), dict):
        return dict(node["additionalProperties"])
    return {}
