"""From a YAML file to a checked spec; every complaint says file, line and column."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from fairshare import assets
from fairshare.errors import Location, SpecError
from fairshare.spec.base import MisplacedError, Spec
from fairshare.spec.launcher import Launcher
from fairshare.spec.matrix import Matrix
from fairshare.spec.scenario import Scenario

T = TypeVar("T", bound=Spec)
SPECS: dict[str, type[Spec]] = {"scenario": Scenario, "launcher": Launcher, "matrix": Matrix}
_MAX_FILE_BYTES = 1024 * 1024
_MAX_NODES = 100_000  # aliases written out: a few lines of them can stand for billions of values
_MAX_DEPTH = 40
_SHOWN_ERRORS = 5
_KEY_TAGS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")


def load_scenario(name: str) -> tuple[Scenario, Path]:
    """A scenario by name or path, and its file (datasets are relative to it).

    ``NAME:TENANT+TENANT`` is the scenario with these of its tenants alone, named
    ``NAME.TENANT.TENANT``: what each suffers from one other, or from nobody.

    Raises:
        SpecError: it does not exist or is wrong, or has no such tenant.
    """
    whole, colon, chosen = name.rpartition(":")
    if not colon or Path(name).is_file():
        path = assets.find("scenario", name)
        return load(path, Scenario), path
    path = assets.find("scenario", whole)
    return _with_tenants(load(path, Scenario), chosen.split("+")), path


def _with_tenants(scenario: Scenario, names: Sequence[str]) -> Scenario:
    known = {tenant.name: tenant for tenant in scenario.tenants}
    if unknown := [name for name in names if name not in known]:
        raise SpecError(
            f"scenario {scenario.name} has no tenant named {unknown[0]!r}",
            hint=f"known: {', '.join(known)}; several are joined by +",
        )
    kept = [known[name].model_dump() for name in known if name in names]
    name = ".".join((scenario.name, *(name for name in known if name in names)))
    return validate({**scenario.model_dump(), "name": name, "tenants": kept}, Scenario)


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
    raw, root = _read(path)
    if not isinstance(raw, dict):
        raise SpecError(
            "the file must hold a mapping (key: value lines)", where=Location(path, 1, 1)
        )
    return validate(raw, spec, path=path, root=root)


def kind_of(path: Path) -> str:
    """The kind of spec that a file holds, told by a key that only this kind has.

    Raises:
        SpecError: the file cannot be read or is not YAML.
    """
    raw, _ = _read(path)
    keys = set(raw) if isinstance(raw, dict) else set()
    if "engine" in keys:
        return "launcher"
    return "matrix" if "scenarios" in keys else "scenario"


def validate(
    raw: Mapping[str, Any], spec: type[T], *, path: Path | None = None, root: Any = None
) -> T:
    """Check a mapping that came from a file (``path``, ``root``) or from flags.

    Raises:
        SpecError: with the place of the first complaint, and up to five complaints in all.
    """
    _refuse_unstorable(raw, (), path, root)
    try:
        return spec.model_validate(raw)
    except ValidationError as error:
        details = _without_union_noise(error.errors(include_url=False))[:_SHOWN_ERRORS]
        first, *others = [_complaint(detail, spec, root) for detail in details]
        where = _locate(path, root, details[0]) if path else None
        evidence = [
            f"also, {_locate(path, root, detail)}: {text}" if path else f"also: {text}"
            for (text, _), detail in zip(others, details[1:], strict=True)
        ]
        message, hint = first
        raise SpecError(message, where=where, hint=hint, evidence=evidence) from None


def _read(path: Path) -> tuple[Any, yaml.Node | None]:
    """The values of a file, and the nodes that say where each stands."""
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise SpecError("the file is larger than 1 MiB", where=Location(path))
        loader = yaml.SafeLoader(path.read_text("utf-8"))
        root = loader.get_single_node()
        if root is None:
            return None, None
        _check_nodes(root, path)
        return loader.construct_document(root), root
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = Location(path, mark.line + 1, mark.column + 1) if mark else Location(path)
        problem = error.problem or error.context or "not valid"
        raise SpecError(f"not valid YAML: {problem}", where=where) from None
    except (yaml.YAMLError, ValueError) as error:
        raise SpecError(f"not valid YAML: {error}", where=Location(path)) from None
    except RecursionError:
        raise SpecError("nested too deeply", where=Location(path)) from None
    except OSError as error:
        raise SpecError(f"cannot be read: {error.strerror}", where=Location(path)) from None


def _check_nodes(root: yaml.Node, path: Path) -> None:
    """Refuse what would never end, or silently mean something else, once it is made values.

    Raises:
        SpecError: aliases that contain themselves or too much, a key twice or that is no text.
    """
    waiting = [(root, 1)]
    seen = 0
    while waiting:
        node, depth = waiting.pop()
        seen += 1
        if depth > _MAX_DEPTH:
            raise SpecError("nested too deeply", where=_at(path, node))
        if seen + len(waiting) > _MAX_NODES:
            raise SpecError("the file says too much (aliases count in full)", where=Location(path))
        if isinstance(node, yaml.MappingNode):
            _check_keys(node, path)
            waiting += [(value, depth + 1) for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            waiting += [(item, depth + 1) for item in node.value]


def _check_keys(node: yaml.MappingNode, path: Path) -> None:
    """YAML lets the second of two equal keys win, and reads ``no:`` as false: hidden mistakes."""
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag not in _KEY_TAGS:
            hint = "put it in quotes" if isinstance(key, yaml.ScalarNode) else None
            raise SpecError("a key must be text", where=_at(path, key), hint=hint)
        if key.value in seen:
            raise SpecError(f"{key.value!r} is given twice", where=_at(path, key))
        seen.add(key.value)


def _at(path: Path, node: yaml.Node) -> Location:
    return Location(path, node.start_mark.line + 1, node.start_mark.column + 1)


def _refuse_unstorable(
    value: Any, steps: tuple[str | int, ...], path: Path | None, root: yaml.Node | None
) -> None:
    """What JSON cannot hold could not be stored with the results; NUL ends text for the kernel.

    Raises:
        SpecError: a number beyond 64 bits, or text with half a character or a NUL in it.
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            _refuse_unstorable(item, (*steps, key), path, root)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _refuse_unstorable(item, (*steps, index), path, root)
    else:
        problem = None
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            problem = "the number is too large"
        elif isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
            problem = "the text is not valid Unicode"
        elif isinstance(value, str) and "\0" in value:
            problem = "the text holds a NUL character"
        if problem:
            where = _place(path, root, steps) if path else None
            raise SpecError(f"{'.'.join(map(str, steps))}: {problem}", where=where)


def _without_union_noise(details: list[ErrorDetails]) -> list[ErrorDetails]:
    """Unknown keys first: they are usually why a required key is missing."""
    return sorted(details, key=lambda detail: detail["type"] != "extra_forbidden")


def _way(detail: ErrorDetails) -> tuple[str | int, ...]:
    """The steps to what is complained about; a validator may have pointed further down."""
    error = detail.get("ctx", {}).get("error")
    return (*detail["loc"], *(error.at if isinstance(error, MisplacedError) else ()))


def _written(root: Any, detail: ErrorDetails) -> list[str | int]:
    """The location as the user wrote it, without the union tags that pydantic mixes in."""
    if not isinstance(root, yaml.Node):
        return list(_way(detail))
    steps = [step for step, _, _ in _walk(root, _way(detail))]
    if detail["type"] == "missing":
        steps.append(detail["loc"][-1])
    return steps


def _locate(path: Path | None, root: Any, detail: ErrorDetails) -> Location | None:
    """The deepest node of the document that lies on the way to the complaint."""
    if path is None:
        return None
    return _place(path, root, _way(detail), of_key=detail["type"] == "extra_forbidden")


def _place(path: Path, root: Any, steps: Sequence[str | int], *, of_key: bool = False) -> Location:
    if not isinstance(root, yaml.Node):
        return Location(path)
    mark, last = root.start_mark, steps[-1] if steps else None
    for step, key, node in _walk(root, steps):
        mark = (key if of_key and step == last and key is not None else node).start_mark
    return Location(path, mark.line + 1, mark.column + 1)


def _walk(
    root: yaml.Node, steps: Sequence[str | int]
) -> Iterator[tuple[str | int, yaml.Node | None, yaml.Node]]:
    """The steps that stand in the document, with key and value: no union tag, nothing missing.

    A tag comes first at its mapping, which may have a key of the same name too.
    """
    node, tagged = root, False
    for step in steps:
        kind = _child(node, "kind")
        if not tagged and kind is not None and getattr(kind[1], "value", None) == step:
            tagged = True
            continue
        if (found := _child(node, step)) is not None:
            key, node = found
            tagged = False
            yield step, key, node


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
        tags = _known_kinds(spec, detail["loc"])
        written = str(context.get("tag", ""))
        close = difflib.get_close_matches(written, tags, n=1, cutoff=0.5)
        hint = (f"did you mean {close[0]}? " if close else "") + f"known kinds: {', '.join(tags)}"
        return f"{name!r} needs a known kind" + (f", not {written!r}" if written else ""), hint
    if kind in ("value_error", "assertion_error"):
        reason = str(context.get("error", detail["msg"]))
        return (f"{name}: {reason}" if name else reason), None
    shown = repr(detail.get("input"))
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"{name!r} is {shown}: it must be a mapping, such as {{key: value}}", None
    return f"{name!r} is {shown}: {_lower_first(detail['msg'])}", None


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _known_keys(spec: type[Spec], location: Sequence[str | int]) -> list[str]:
    """The keys allowed beside an unknown one, found through the JSON Schema of the spec."""
    options = _options_at(spec, location[:-1])
    return [key for option in options for key in option.get("properties", {})]


def _known_kinds(spec: type[Spec], location: Sequence[str | int]) -> list[str]:
    """The values of ``kind`` that may stand at a place."""
    options = _options_at(spec, location)
    return [kind for o in options for kind in o.get("discriminator", {}).get("mapping", {})]


def _options_at(spec: type[Spec], location: Iterable[str | int]) -> list[dict[str, Any]]:
    """The schemas of what may stand at a place; more than one where it may be left out."""
    schema = spec.model_json_schema()
    node: dict[str, Any] = schema
    for step in location:
        node = _descend(_resolve(node, schema), step, schema)
    node = _resolve(node, schema)
    return [node, *(_resolve(option, schema) for option in node.get("anyOf", ()))]


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
