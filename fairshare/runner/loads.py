"""What the load generator is told to send in a cell, and to whom."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from fairshare.load.engine_transport import URL_SCHEME
from fairshare.load.load import TenantLoad
from fairshare.load.target import Target
from fairshare.records import Scheduling, TransportKind
from fairshare.runner.gateway import Gateway
from fairshare.runner.plan import PlannedCell
from fairshare.runner.settings import Settings
from fairshare.serving.fleet import Fleet
from fairshare.serving.models import ModelFacts
from fairshare.serving.server import Server
from fairshare.sharing.plan import PartitionPlan
from fairshare.spec.launcher import Engine, Launcher
from fairshare.spec.scenario import Api, Tenant, Timing
from fairshare.spec.workload import ClosedLoop, SharedTraceArrivals, TraceArrivals
from fairshare.virtual.tokens import VirtualTokenizer
from fairshare.workload.contents import Adjustments
from fairshare.workload.prompts import Vocabulary, load_vocabulary
from fairshare.workload.requests import PlannedRequest, planned_requests

STALL_S = 60.0  # a stream that is silent for so long has hung
TEMPLATE_TOKENS = 64  # more than the chat templates of the models in use add


def cell_loads(
    cell: PlannedCell,
    plan: PartitionPlan,
    fleet: Fleet,
    settings: Settings,
    gateway: Gateway | None = None,
) -> list[TenantLoad]:
    """One load for each tenant of the cell, sent to its server or to the gateway before it."""
    models = {tenant: slot.model for slot in plan.slots for tenant in slot.tenants}
    loads = []
    for tenant in cell.tenants:
        launcher, model = settings.launcher, settings.models[models[tenant.name]]
        server = fleet.server_of(tenant.name)
        target = _target(tenant, server, launcher, settings.matrix.transport)
        target.labelled = _labelled(tenant, cell)
        if gateway is not None:
            target.base_url, target.api_key = gateway.base_url, gateway.keys[tenant.name]
        adjustments = Adjustments()
        requests = tenant_requests(
            tenant, cell, launcher, model, adjustments, as_text=not target.token_id_prompts
        )
        concurrency = concurrency_of(tenant, cell)
        loads.append(TenantLoad(tenant, target, concurrency, requests, adjustments))
    return loads


def tenant_requests(
    tenant: Tenant,
    cell: PlannedCell,
    launcher: Launcher,
    model: ModelFacts,
    adjustments: Adjustments,
    *,
    as_text: bool,
) -> Callable[[], Iterator[PlannedRequest]]:
    """What begins a tenant's plan of a cell."""
    return partial(
        planned_requests,
        tenant,
        cell_seed=cell.seed,
        contents_seed=cell.contents_seed,
        horizon_s=_horizon_s(cell.scenario.timing),
        window_start_s=cell.scenario.timing.warmup_s,
        window_s=cell.scenario.timing.window_s,
        load_scale=cell.key.load_scale,
        vocabulary=_vocabulary(launcher, model),
        base_dir=cell.base_dir,
        as_text=as_text,
        max_total_tokens=_room(launcher, model, tenant.api or launcher.apis[0]),
        adjustments=adjustments,
        shared=cell.scenario.trace,
        sharers=cell.scenario.sharers(),
    )


def _target(tenant: Tenant, server: Server, launcher: Launcher, transport: TransportKind) -> Target:
    api = tenant.api or launcher.apis[0]
    return Target(
        tenant=tenant.name,
        server=server.name,
        base_url=_requests_url(server, transport),
        model=server.model_for(tenant.name),
        api=api,
        stream=tenant.stream,
        api_key=server.api_key,
        token_id_prompts=api is Api.COMPLETIONS and launcher.token_id_prompts,
        continuous_usage=launcher.continuous_usage,
        sampling=tenant.sampling,
        timeout_s=tenant.timeout_s,
        stall_s=STALL_S,
        priority=tenant.priority,
    )


def _labelled(tenant: Tenant, cell: PlannedCell) -> bool:
    """Whether bodies say whose they are, and of what: a gateway knows the tenant by its key."""
    if cell.scheduler.place is Scheduling.ENGINE:
        return True
    chains = tenant.interaction is not None or isinstance(
        tenant.arrival, TraceArrivals | SharedTraceArrivals
    )
    return cell.scheduler.behind_gateway and chains and tenant.api is not Api.TGI


def _requests_url(server: Server, transport: TransportKind) -> str:
    if transport is TransportKind.IN_PROCESS:
        return f"{URL_SCHEME}{server.engine_socket}"
    return server.base_url


def _horizon_s(timing: Timing) -> float:
    """How far an open-loop tenant's requests must reach."""
    rounds_s = (timing.rounds or 0) * (timing.round_s or 0.0)
    return timing.warmup_s + max(timing.window_s, rounds_s)


def _vocabulary(launcher: Launcher, model: ModelFacts) -> Vocabulary:
    if launcher.engine is Engine.VIRTUAL:
        return Vocabulary(model.vocab_size, frozenset(), VirtualTokenizer(model.vocab_size))
    return load_vocabulary(model.path, model.vocab_size, frozenset(model.eos_token_ids))


def _room(launcher: Launcher, model: ModelFacts, api: Api) -> int:
    """The longest prompt and output, together, that the server takes."""
    asked = launcher.args.get("max_model_len")
    limit = min(asked, model.max_model_len) if isinstance(asked, int) else model.max_model_len
    return max(2, limit - (TEMPLATE_TOKENS if api is Api.CHAT else 0))


def concurrency_of(tenant: Tenant, cell: PlannedCell) -> int | None:
    """How many of a tenant's requests are in flight; None in open loop."""
    if not isinstance(tenant.arrival, ClosedLoop):
        return None
    return tenant.arrival.concurrency or cell.key.concurrency or 1
