"""Provenance says what a figure needs, and nothing that must stay secret."""

from __future__ import annotations

import orjson
import pytest

from fairshare.devices.device import Device
from fairshare.results.provenance import gather
from fairshare.spec.launcher import DeviceKind, Engine, Launcher


def test_provenance_names_machine_software_and_device() -> None:
    """Everything needed to judge a figure is there and can be written as JSON."""
    device = Device(DeviceKind.VIRTUAL, "virtual:l4", "Simulated L4", 24 << 30)
    launcher = Launcher(name="v", engine=Engine.VIRTUAL, command=["x"])
    facts = gather(device, launcher, engine_version="1.2")
    assert facts["device"]["name"] == "Simulated L4"
    assert facts["engine"] == {"name": "virtual", "version": "1.2"}
    assert facts["machine"]["memory_bytes"] > 1 << 20
    assert facts["packages"]["numpy"]
    assert orjson.loads(orjson.dumps(facts)) == facts


def test_provenance_keeps_no_secret_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only allow-listed variables are recorded."""
    for name in ("HF_TOKEN", "OPENAI_API_KEY", "VLLM_API_KEY"):
        monkeypatch.setenv(name, "hush-hush")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    facts = gather()
    assert facts["environment"]["OMP_NUM_THREADS"] == "3"
    assert b"hush-hush" not in orjson.dumps(facts)
