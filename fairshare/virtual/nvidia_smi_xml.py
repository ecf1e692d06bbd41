"""``nvidia-smi -q -x``: as much of it as tells a GPU, its MIG devices and its processes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

from fairshare.virtual.nvidia_smi_query import process_name
from fairshare.virtual.processes import live_servers
from fairshare.virtual.state import MigDevice, State, mig_devices

_MIB = 1024**2
_HEAD = '<?xml version="1.0" ?>\n<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">\n'


def document(directory: Path, state: State) -> str:
    """The answer."""
    gpu, reports = state["gpu"], live_servers(directory)
    devices = mig_devices(state)
    capable = bool(gpu["mig_profiles"])
    root = Xml.Element("nvidia_smi_log")
    _add(root, {"driver_version": gpu["driver_version"], "attached_gpus": 1})
    node = Xml.SubElement(root, "gpu", id=gpu["bus_id"])
    _add(node, {"product_name": gpu["name"], "persistence_mode": state["persistence_mode"]})
    mode = Xml.SubElement(node, "mig_mode")
    for when in ("current", "pending"):
        _add(mode, {f"{when}_mig": state["mig_mode"][when] if capable else "N/A"})
    parts = Xml.SubElement(node, "mig_devices")
    for device in devices:
        _mig_device(parts, device, reports)
    if not devices:
        parts.text = "None"
    _add(node, {"uuid": gpu["uuid"]})
    _memory(node, gpu["memory_mib"], reports)
    _add(node, {"compute_mode": state["compute_mode"]})
    _processes(node, reports, {device.uuid: device for device in devices})
    Xml.indent(root, "\t")
    return _HEAD + Xml.tostring(root, encoding="unicode")


def _mig_device(parent: Xml.Element, device: MigDevice, reports: list[dict[str, Any]]) -> None:
    node = Xml.SubElement(parent, "mig_device")
    ids = {"gpu_instance_id": device.gi, "compute_instance_id": device.ci}
    _add(node, {"index": device.index, **ids})
    attributes = Xml.SubElement(Xml.SubElement(node, "device_attributes"), "shared")
    copy, decode, encode, jpeg, ofa = device.profile["engines"]
    _add(attributes, {"multiprocessor_count": device.profile["sm"], "copy_engine_count": copy})
    _add(attributes, {"encoder_count": encode, "decoder_count": decode})
    _add(attributes, {"ofa_count": ofa, "jpg_count": jpeg})
    own = [report for report in reports if report["device_uuid"] == device.uuid]
    _memory(node, round(device.profile["memory_gib"] * 1024), own)


def _memory(parent: Xml.Element, total_mib: int, reports: list[dict[str, Any]]) -> None:
    used = sum(report["used_bytes"] for report in reports) // _MIB
    node = Xml.SubElement(parent, "fb_memory_usage")
    figures = {"total": total_mib, "reserved": 0, "used": used, "free": total_mib - used}
    _add(node, {name: f"{mib} MiB" for name, mib in figures.items()})


def _processes(
    parent: Xml.Element, reports: list[dict[str, Any]], devices: Mapping[str, MigDevice]
) -> None:
    node = Xml.SubElement(parent, "processes")
    for report in reports:
        device = devices.get(report["device_uuid"])
        entry = Xml.SubElement(node, "process_info")
        _add(entry, {"gpu_instance_id": "N/A" if device is None else device.gi})
        _add(entry, {"compute_instance_id": "N/A" if device is None else device.ci})
        kind = "M+C" if report.get("sharing") == "mps" else "C"
        _add(entry, {"pid": report["pid"], "type": kind, "process_name": process_name(report)})
        _add(entry, {"used_memory": f"{report['used_bytes'] // _MIB} MiB"})


def _add(parent: Xml.Element, values: Mapping[str, object]) -> None:
    for name, value in values.items():
        Xml.SubElement(parent, name).text = str(value)
