"""JSON Schemas of the files of a result folder: of a whole file, or of one line of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter

from fairshare.records import FORMAT_VERSION, CellResult, RequestRecord

DIALECT = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]

_NUMBER, _WHOLE, _TEXT = {"type": "number"}, {"type": "integer"}, {"type": "string"}
_SOMETIMES: Schema = {"type": ["number", "null"]}
_OBJECT, _OBJECTS = {"type": "object"}, {"type": "array", "items": {"type": "object"}}
_VERSION: Schema = {"const": FORMAT_VERSION}


def _closed(of: type) -> Schema:
    """The schema of a dataclass as it is written; other fields are refused, as in reading."""
    schema = TypeAdapter(of).json_schema(mode="serialization")
    for each in (schema, *schema.get("$defs", {}).values()):
        if "properties" in each:
            each["additionalProperties"] = False
    return schema


def _open(says: str, required: Schema, optional: Schema | None = None) -> Schema:
    """An object with these fields, and others."""
    return {
        "description": says,
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
    }


def _row(says: str, columns: dict[str, Schema]) -> Schema:
    """A line of a CSV file as an object by column, empty values as null."""
    return {**_open(says, columns), "additionalProperties": False}


def _cell() -> Schema:
    schema = _closed(CellResult)
    schema["properties"]["format_version"] = _VERSION
    schema["required"] = [*schema["required"], "format_version"]
    return schema


def _matrix() -> Schema:
    known = {"request": _OBJECT, "scenarios": _OBJECT, "infeasible": _OBJECT, "plan": _OBJECTS,
             "starts": _OBJECTS, "provenance": _OBJECT}  # fmt: skip
    return _open("matrix.json: what was asked, where and with what.", {"format_version": _VERSION},
                 known)  # fmt: skip


def _summary() -> Schema:
    cell = _open("The figures of one cell.", {"cell": _TEXT, "status": _TEXT, "provenance": _TEXT,
                 "marks": {"type": "array", "items": _TEXT}, "tenants": _OBJECTS})  # fmt: skip
    estimate = _open(
        "A figure: mean over repetitions, 95 % interval.",
        {"value": _NUMBER, "interval": {"type": ["object", "null"]},
         "across_runs": {"type": "boolean"}},
    )  # fmt: skip
    row = _open(
        "Repetitions of one tenant (null: all) under one mode brought together.",
        {"scenario": _TEXT, "mode": _TEXT, "tenant": {"type": ["string", "null"]},
         "repetitions": _WHOLE, "metrics": {"type": "object", "additionalProperties": estimate}},
    )  # fmt: skip
    return _open(
        "analysis/summary.json: every figure, with definitions.",
        {"format_version": _VERSION, "name": _TEXT, "definitions": _OBJECT,
         "cells": {"type": "array", "items": cell},
         "comparison": {"type": "array", "items": row}},
    )  # fmt: skip


def _server_metrics() -> Schema:
    gauges = ("running", "waiting", "kv_usage", "preemptions_total", "prompt_tokens_total",
              "generation_tokens_total")  # fmt: skip
    return _open("A line of server_metrics.jsonl.", {"t_ns": _WHOLE, "server": _TEXT},
                 dict.fromkeys(gauges, _SOMETIMES))  # fmt: skip


def _gpu() -> Schema:
    gauges = ("gpu_utilisation", "memory_utilisation", "memory_used_bytes", "power_w",
              "temperature_c", "sm_clock_mhz", "memory_clock_mhz")  # fmt: skip
    return _row("A line of gpu.csv.", {"t_s": _NUMBER, **dict.fromkeys(gauges, _SOMETIMES)})


def _host() -> Schema:
    columns = {"t_s": _NUMBER, "server": _TEXT, "cpu_percent": _SOMETIMES, "rss_bytes": _SOMETIMES}
    return _row("A line of host.csv.", columns)


SCHEMAS: dict[str, tuple[str, Callable[[], Schema]]] = {
    "result": ("matrix.json", _matrix),
    "cell": ("cell.json", _cell),
    "config": (
        "config.resolved.yaml",
        lambda: _open(
            "Everything that defines a cell; a scenario's fields, defaults included.", {}
        ),
    ),
    "request": ("a line of requests.jsonl", lambda: _closed(RequestRecord)),
    "event": (
        "a line of events.jsonl",
        lambda: _open("Something that happened.", {"t": _NUMBER, "event": _TEXT}),
    ),
    "decision": (
        "a line of scheduling.jsonl",
        lambda: _open("Something a policy decided.", {"event": _TEXT}, {"time_ns": _WHOLE}),
    ),
    "server-metrics": ("a line of server_metrics.jsonl", _server_metrics),
    "gpu": ("a line of gpu.csv", _gpu),
    "host": ("a line of host.csv", _host),
    "summary": ("analysis/summary.json", _summary),
}
"""By kind: which file it is of, and what makes it."""


def result_schema(kind: str) -> Schema:
    """The JSON Schema of one kind of result file; ``kind`` is a key of :data:`SCHEMAS`."""
    file, make = SCHEMAS[kind]
    return {"$schema": DIALECT, **make(), "title": file}
