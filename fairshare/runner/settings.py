"""Everything about a run that is settled, and checked, before anything starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairshare.devices import inventory
from fairshare.devices.device import Device
from fairshare.devices.driver import Driver
from fairshare.doctor.examine import examine
from fairshare.doctor.finding import failures
from fairshare.doctor.intent import Intent
from fairshare.errors import SpecError
from fairshare.records import Mode, TransportKind, fingerprint
from fairshare.runner.in_process import check_in_process
from fairshare.runner.inputs import input_digests
from fairshare.runner.scheduling import Scheduler, check_schedulers, gateway_window, schedulers_of
from fairshare.runner.sharing import settle_sharing
from fairshare.serving import arguments, interpreter
from fairshare.serving.endless import without_end_token
from fairshare.serving.external import endpoint_key, endpoints_of
from fairshare.serving.models import ModelFacts, resolve_model
from fairshare.sharing.options import SharingOptions
from fairshare.spec.launcher import DeviceKind, Engine, Launcher
from fairshare.spec.loading import load_launcher, load_scenario, validate
from fairshare.spec.matrix import Matrix
from fairshare.spec.scenario import Api, Scenario, Tenant
from fairshare.virtual.driver import driver_for
from fairshare.virtual.models import virtual_model
from fairshare.workload.requests import check_scenario

DEFAULT_LAUNCHER = {
    DeviceKind.CUDA: "vllm",
    DeviceKind.CPU: "vllm-cpu",
    DeviceKind.VIRTUAL: "virtual",
}
DEFAULT_MODEL = {DeviceKind.CPU: "small", DeviceKind.VIRTUAL: "qwen3-4b"}
EXTERNAL_DEVICE = Device(
    kind=DeviceKind.EXTERNAL, id="external", name="servers run by somebody else", memory_bytes=0
)
_UNKNOWN_VOCABULARY = 20_000  # fewer ids than any language model in use has
_UNKNOWN_CONTEXT = 1_000_000  # the server will say when a prompt is too long for it


@dataclass(frozen=True, slots=True)
class Flags:
    """What the command line said over the matrix file; None means nothing was said."""

    device: str | None = None
    gpu: str | None = None
    launcher: str | None = None
    model: str | None = None
    engine_args: Mapping[str, Any] = field(default_factory=dict)
    python: str | None = None
    allow_gpu_changes: bool = False
    allow_gpu_reset: bool = False
    allow_foreign: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """A run, settled.

    ``models`` is keyed by the names that tenants use; ``allow_foreign``: others may compute on the
    device; ``digests`` tell, by scenario, what is in the files that it names.
    """

    matrix: Matrix
    scenarios: tuple[tuple[Scenario, Path], ...]
    modes: tuple[Mode, ...]
    schedulers: tuple[Scheduler, ...]
    device: Device
    device_reason: str
    driver: Driver
    launcher: Launcher
    python: str
    engine_version: str | None
    default_model: str
    models: Mapping[str, ModelFacts]
    sharing: SharingOptions
    allow_foreign: bool
    digests: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def seed_of(self, scenario: Scenario) -> int:
        """The seed of all that is random in a scenario: the run's, else the scenario's own."""
        return scenario.seed if self.matrix.seed is None else self.matrix.seed

    def window_of(self, scheduler: Scheduler) -> int | None:
        """How many requests a gateway lets the server have at once (None: it finds out)."""
        return self.matrix.gateway_window or gateway_window(self.launcher, scheduler)

    def model_of(self, tenant: Tenant) -> str:
        """The name of the tenant's model; for servers of others, what they are reached by."""
        if self.launcher.engine is Engine.EXTERNAL:
            return endpoints_of(self.launcher, [tenant.name])[tenant.name]
        return tenant.model or self.default_model


def settle(
    matrix: Matrix,
    flags: Flags,
    *,
    scenarios: Sequence[tuple[Scenario, Path]] | None = None,
    launcher: Launcher | None = None,
) -> Settings:
    """Find and check scenarios, device, launcher, engine and models.

    ``scenarios`` and ``launcher`` are used as they are where given (a rerun has its own).

    Raises:
        SpecError: a name, file or value is wrong.
        PreflightError: this machine cannot run it.
    """
    found = scenarios or [load_scenario(name) for name in matrix.scenarios]
    settled = tuple(_with_timing(scenario, path, matrix) for scenario, path in found)
    _refuse_same_names([scenario for scenario, _ in settled])
    for scenario, path in settled:
        check_scenario(scenario, path.parent)
    device, reason, launcher = _device_and_launcher(matrix, flags, launcher)
    _refuse_unspoken(launcher, [scenario for scenario, _ in settled])
    python, version = _engine(launcher)
    default_model = flags.model or matrix.model or DEFAULT_MODEL.get(device.kind, "")
    tenants = [tenant for scenario, _ in settled for tenant in scenario.expanded()]
    models = _models(launcher, tenants, default_model)
    modes = _modes(matrix, launcher, tenants)
    check_schedulers(matrix, modes, launcher, tenants)
    if matrix.transport is TransportKind.IN_PROCESS:
        check_in_process(launcher, modes, tenants)
    driver = driver_for(device)
    return Settings(
        matrix=matrix,
        scenarios=settled,
        modes=modes,
        schedulers=schedulers_of(matrix),
        device=device,
        device_reason=reason,
        driver=driver,
        launcher=launcher,
        python=python,
        engine_version=version,
        default_model=default_model,
        models=models,
        sharing=sharing_of(matrix, flags, device, driver, modes),
        allow_foreign=flags.allow_foreign,
        digests={one.name: input_digests(one, path.parent) for one, path in settled},
    )


def sharing_of(
    matrix: Matrix,
    flags: Flags,
    device: Device,
    driver: Driver,
    modes: Sequence[Mode] | None = None,
) -> SharingOptions:
    """What the user says of how shares are made in these modes (None: the matrix's own).

    Raises:
        SpecError: a wish has no effect on this device, or lacks another that it needs.
    """
    return settle_sharing(
        matrix.mig,
        matrix.modes if modes is None else modes,
        device,
        driver,
        mps=matrix.mps,
        timeslice=matrix.timeslice,
        allow_gpu_changes=flags.allow_gpu_changes,
        allow_gpu_reset=flags.allow_gpu_reset,
        lock_clocks=matrix.lock_clocks,
    )


def _with_timing(scenario: Scenario, path: Path, matrix: Matrix) -> tuple[Scenario, Path]:
    changes = {
        name: value
        for name in ("warmup_s", "window_s", "drain_s")
        if (value := getattr(matrix, name)) is not None
    }
    if not changes:
        return scenario, path
    timing = scenario.timing.model_copy(update=changes)
    return scenario.model_copy(update={"timing": timing}), path


def _refuse_same_names(scenarios: Sequence[Scenario]) -> None:
    names = [scenario.name for scenario in scenarios]
    for name in names:
        if names.count(name) > 1:
            raise SpecError(
                f"two scenarios are named {name!r}", hint="give each its own name: in its file"
            )


def _refuse_unspoken(launcher: Launcher, scenarios: Sequence[Scenario]) -> None:
    for tenant in (tenant for scenario in scenarios for tenant in scenario.tenants):
        if tenant.api is not None and tenant.api not in launcher.apis:
            raise SpecError(
                f"tenant {tenant.name} asks for api {tenant.api.value}, which launcher "
                f"{launcher.name} does not speak",
                hint="it speaks " + ", ".join(api.value for api in launcher.apis),
            )
        if tenant.priority is not None:
            _refuse_unheard_priority(tenant, launcher)


def _refuse_unheard_priority(tenant: Tenant, launcher: Launcher) -> None:
    """A priority that the engine ignores, or refuses with every request, is told at the start."""
    if (tenant.api or launcher.apis[0]) is Api.TGI:
        raise SpecError(
            f"tenant {tenant.name} has a priority, which api tgi cannot carry",
            hint="remove priority, or use api completions or chat",
        )
    if launcher.engine is Engine.EXTERNAL:
        return  # nobody knows but its owner
    if launcher.engine is not Engine.VLLM:
        raise SpecError(
            f"tenant {tenant.name} has a priority, and launcher {launcher.name} starts no engine "
            "that schedules by it",
            hint="remove priority, or take a vLLM launcher",
        )
    if launcher.args.get("scheduling_policy") != "priority":
        raise SpecError(
            f"tenant {tenant.name} has a priority, and vLLM refuses those while it serves first "
            "come, first served",
            hint="add --engine-arg scheduling_policy=priority, or remove priority",
        )


def _device_and_launcher(
    matrix: Matrix, flags: Flags, launcher: Launcher | None
) -> tuple[Device, str, Launcher]:
    name = flags.launcher or matrix.launcher
    if launcher is None and name:
        launcher = load_launcher(name)[0]
    if launcher is not None and launcher.engine is Engine.EXTERNAL:
        _refuse_in_vain(flags)
        return EXTERNAL_DEVICE, "the launcher measures servers that somebody else runs", launcher
    asked = flags.device or matrix.device
    if asked is None and launcher is not None and DeviceKind.CUDA not in launcher.devices:
        asked = launcher.devices[0].value if launcher.devices else None
    # Whether others compute there is asked later, when what dead runs left has been removed.
    device, reason = inventory.detect(asked, gpu=flags.gpu)
    if asked is None and device.kind is DeviceKind.CUDA:
        device, reason = _usable_cuda(device, reason, matrix, flags, launcher)
    return device, reason, launcher_for(device.kind, launcher, flags)


def launcher_for(kind: DeviceKind, launcher: Launcher | None, flags: Flags) -> Launcher:
    """The launcher that was named, else the usual one of a kind of device, as the flags adjust it.

    Raises:
        SpecError: the launcher does not run on such a device, or a flag does not fit it.
    """
    launcher = launcher or load_launcher(DEFAULT_LAUNCHER[kind])[0]
    if launcher.devices and kind not in launcher.devices:
        raise SpecError(
            f"launcher {launcher.name} does not run on {kind.value}",
            hint="it runs on " + ", ".join(each.value for each in launcher.devices),
        )
    return _adjusted(launcher, flags)


def _refuse_in_vain(flags: Flags) -> None:
    """Flags that say how servers are started, beside servers that somebody else has started."""
    given = {
        "--device": flags.device,
        "--gpu": flags.gpu,
        "--engine-arg": flags.engine_args,
        "--python": flags.python,
    }
    for name, value in given.items():
        if value:
            raise SpecError(
                f"{name} has no effect on servers that somebody else runs",
                hint="leave it out, or take another --launcher",
            )


def _usable_cuda(
    device: Device, reason: str, matrix: Matrix, flags: Flags, launcher: Launcher | None
) -> tuple[Device, str]:
    """A GPU that nobody asked for by name is taken only if everything else is there too."""
    candidate = launcher or load_launcher(DEFAULT_LAUNCHER[DeviceKind.CUDA])[0]
    if not (flags.model or matrix.model):
        missing = "no --model is given"
    else:
        intent = Intent(
            kind=device.kind,
            modes=frozenset(matrix.modes),
            launcher=_adjusted(candidate, flags),
            folder=Path("results"),
            device=device,
            sharing=sharing_of(matrix, flags, device, Driver()),
            allow_foreign=flags.allow_foreign,
        )
        against = failures(examine(intent))
        if not against:
            return device, reason
        missing = f"{against[0].name}: {against[0].says}"
    virtual, _ = inventory.detect("virtual")
    return virtual, f"{device.name} is there, but {missing}; simulating instead"


def _adjusted(launcher: Launcher, flags: Flags) -> Launcher:
    changes: dict[str, Any] = {}
    if flags.engine_args:
        changes["args"] = {**launcher.args, **flags.engine_args}
    if flags.python:
        changes["python"] = flags.python
    if not changes:
        return launcher
    return validate({**launcher.model_dump(), **changes}, Launcher)


def _engine(launcher: Launcher) -> tuple[str, str | None]:
    if launcher.engine is Engine.EXTERNAL:
        return "", None
    python = interpreter.engine_python(launcher)
    arguments.check_arguments(launcher, python)
    return python, interpreter.engine_facts(launcher, python).version


def _models(launcher: Launcher, tenants: Sequence[Tenant], default: str) -> dict[str, ModelFacts]:
    if launcher.engine is Engine.EXTERNAL:
        for tenant in tenants:
            if tenant.model or tenant.adapter:
                raise SpecError(
                    f"tenant {tenant.name}: model and adapter have no effect on servers that "
                    "somebody else runs",
                    hint=f"name the model to ask for as endpoints.{tenant.name}.model",
                )
        facts = resolve_model(default) if default else None
        endpoints = set(endpoints_of(launcher, [tenant.name for tenant in tenants]).values())
        for name in endpoints:
            endpoint_key(name, launcher.endpoints[name])
        return {name: facts or _unknown_model(name) for name in sorted(endpoints)}
    if not default and any(tenant.model is None for tenant in tenants):
        raise SpecError("no model is given", hint="name one with --model PATH_OR_NAME")
    names = {tenant.model or default for tenant in tenants}
    resolve = virtual_model_facts if launcher.engine is Engine.VIRTUAL else resolve_model
    found = {name: resolve(name) for name in sorted(names)}
    if launcher.ignores_end_token:
        return found
    return {name: without_end_token(facts) for name, facts in found.items()}


def virtual_model_facts(name: str) -> ModelFacts:
    """What is known of a simulated model, as of a real one."""
    model = virtual_model(name)
    return ModelFacts(
        name=name,
        path=name,
        served_name=name,
        vocab_size=model.vocab_size,
        max_model_len=model.max_model_len,
        kv_bytes_per_token=model.kv_bytes_per_token,
        weight_bytes=model.weight_bytes,
        eos_token_ids=model.eos_token_ids,
        fingerprint=fingerprint(model),
    )


def _unknown_model(name: str) -> ModelFacts:
    """A model behind somebody else's server, of which nothing is known but its name."""
    return ModelFacts(
        name=name,
        path="",
        served_name=name,
        vocab_size=_UNKNOWN_VOCABULARY,
        max_model_len=_UNKNOWN_CONTEXT,
        kv_bytes_per_token=None,
        weight_bytes=None,
        eos_token_ids=(),
    )


def _modes(matrix: Matrix, launcher: Launcher, tenants: Sequence[Tenant]) -> tuple[Mode, ...]:
    """The modes asked for; for servers of others, how their owner says that they share."""
    if launcher.engine is not Engine.EXTERNAL or "modes" in matrix.model_fields_set:
        return tuple(matrix.modes)
    endpoints = endpoints_of(launcher, [tenant.name for tenant in tenants]).values()
    urls = {launcher.endpoints[name].url for name in endpoints}
    if len(urls) == 1:
        return (Mode.LOGICAL,)
    raise SpecError(
        "the tenants have servers of their own, and how these share a device is not known",
        hint="say it with --modes timeslice, mps or mig; figures are marked as unverified",
    )
