"""What transport in-process refuses, and how its figures are told apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fairshare.devices.device import Device
from fairshare.errors import SpecError
from fairshare.records import Mode, Provenance
from fairshare.runner.in_process import check_in_process, made_in_process
from fairshare.runner.settings import Flags, settle
from fairshare.serving.plugins import SOCKET_VARIABLE
from fairshare.sharing.plan import PartitionPlan, Slot
from fairshare.spec.launcher import DeviceKind, Launcher
from fairshare.spec.loading import load_launcher
from fairshare.spec.matrix import Matrix
from fairshare.spec.scenario import Api, Tenant


def tenant(**fields: Any) -> Tenant:
    """A tenant of a few tokens."""
    prompts = {"kind": "synthetic", "tokens": {"kind": "fixed", "tokens": 8}}
    output = {"kind": "fixed", "tokens": 8}
    return Tenant.model_validate({"name": "a", "prompts": prompts, "output": output, **fields})


def vllm(**fields: Any) -> Launcher:
    """A vLLM launcher."""
    return load_launcher("vllm-cpu")[0].model_copy(update=fields)


def test_what_an_engine_alone_can_do_is_accepted() -> None:
    """One vLLM server for all, completions, streamed or not."""
    modes = [Mode.LOGICAL, Mode.EXCLUSIVE]
    check_in_process(vllm(), modes, [tenant(), tenant(api="completions", stream=False)])


@pytest.mark.parametrize(
    ("launcher", "modes", "fields", "message"),
    [
        (load_launcher("virtual")[0], [Mode.LOGICAL], {}, "launcher virtual"),
        (vllm(), [Mode.LOGICAL, Mode.MPS, Mode.MIG], {}, "not for mps, mig"),
        (vllm(), [Mode.LOGICAL], {"api": "chat"}, "api chat"),
        (vllm(apis=[Api.CHAT]), [Mode.LOGICAL], {}, "api chat"),
        (vllm(), [Mode.LOGICAL], {"adapter": "folder"}, "adapters"),
    ],
)
def test_what_needs_the_server_is_refused(
    launcher: Launcher, modes: list[Mode], fields: dict[str, Any], message: str
) -> None:
    """Engines, modes, protocols and adapters that HTTP is needed for are named, with a way out."""
    with pytest.raises(SpecError, match=message) as caught:
        check_in_process(launcher, modes, [tenant(**fields)])
    assert "--transport" in (caught.value.hint or "")


def test_it_is_refused_before_anything_starts(tmp_path: Path) -> None:
    """A run is settled with its transport: on a simulated GPU nothing is planned."""
    path = tmp_path / "s.yaml"
    path.write_text(
        "name: s\ntenants:\n  - name: a\n"
        "    prompts: {kind: synthetic, tokens: {kind: fixed, tokens: 8}}\n"
        "    output: {kind: fixed, tokens: 8}\n"
    )
    asked = {"name": "m", "scenarios": [str(path)], "transport": "in-process"}
    with pytest.raises(SpecError, match="in-process"):
        settle(Matrix.model_validate(asked), Flags(device="virtual:h200"))


def test_figures_say_that_no_http_is_in_them() -> None:
    """Label and notes go with every figure, and the servers are told to open a socket."""
    slot = Slot("all", ("a",), "m", env={"OMP_NUM_THREADS": "1"})
    device = Device(DeviceKind.CPU, "cpu", "cpu", 1 << 34)
    plan = PartitionPlan(
        Mode.LOGICAL, "logical", Provenance.MEASURED_ON_CPU, device, (slot,), notes=("other",)
    )
    made = made_in_process(plan)
    assert made.label == "logical-in-process"
    assert made.notes[0] == "other"
    assert "no HTTP" in made.notes[1]
    assert made.slots[0].env.keys() == {"OMP_NUM_THREADS", SOCKET_VARIABLE}
