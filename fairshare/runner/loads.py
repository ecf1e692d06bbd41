"""What the load generator is told to send in a cell, and to whom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from fairshare.load.driver import TenantLoad
from fairshare.load.target import Target
from fairshare.runner.plan import PlannedCell
from fairshare.serving.fleet import Fleet
from fairshare.serving.models import ModelFacts
from fairshare.spec.launcher import Launcher
from fairshare.spec.scenario import Tenant
from fairshare.spec.workload import ClosedLoop
from fairshare.workload.prompts import Vocabulary, load_tokenizer
from fairshare.workload.requests import PlannedRequest, planned_requests

STALL_S = 60.0  # a stream that is silent for so long has hung


def tenant_loads(
    cell: PlannedCell, fleet: Fleet, launcher: Launcher, models: Mapping[str, ModelFacts]
) -> list[TenantLoad]:
    """One load for each tenant of the cell.

    Raises:
        SpecError: a dataset or trace of the scenario cannot be read.
    """
    vocabularies: dict[tuple[str, bool], Vocabulary] = {}
    loads = []
    for tenant in cell.tenants:
        server = fleet.server_of(tenant.name)
        model = models[server.model_name]
        api = tenant.api or launcher.apis[0]
        as_text = api is not api.COMPLETIONS or not launcher.token_id_prompts
        vocabulary = vocabularies.setdefault(
            (model.name, as_text), _vocabulary(model, as_text)
        )
        loads.append(
            TenantLoad(
                tenant=tenant,
                target=Target(
                    tenant=tenant.name,
                    server=server.name,
                    base_url=server.base_url,
                    model=server.model_for(tenant.name),
                    api=api,
                    stream=tenant.stream,
                    api_key=server.api_key,
                    token_id_prompts=not as_text,
                    continuous_usage=launcher.continuous_usage,
                    sampling=tenant.sampling,
                    timeout_s=tenant.timeout_s,
                    stall_s=STALL_S,
                ),
                concurrency=_concurrency(tenant, cell),
                requests=_requests(tenant, cell, vocabulary, _context_tokens(launcher, model)),
            )
        )
    return loads


def _vocabulary(model: ModelFacts, as_text: bool) -> Vocabulary:
    tokenizer = load_tokenizer(Path(model.path)) if as_text else None
    return Vocabulary(model.vocab_size, frozenset(model.eos_token_ids), tokenizer)


def _context_tokens(launcher: Launcher, model: ModelFacts) -> int | None:
    """The longest prompt and output, together, that the server takes."""
    asked = launcher.args.get("max_model_len")
    known = [n for n in (asked, model.max_model_len) if isinstance(n, int)]
    return min(known, default=None)


def _concurrency(tenant: Tenant, cell: PlannedCell) -> int | None:
    if not isinstance(tenant.arrival, ClosedLoop):
        return None
    return tenant.arrival.concurrency or cell.key.concurrency or 1


def _requests(
    tenant: Tenant, cell: PlannedCell, vocabulary: Vocabulary, context_tokens: int | None
) -> Iterator[PlannedRequest]:
    timing = cell.scenario.timing
    return planned_requests(
        tenant,
        cell_seed=cell.seed,
        horizon_s=timing.warmup_s + timing.window_s,
        window_start_s=timing.warmup_s,
        window_s=timing.window_s,
        load_scale=cell.key.load_scale,
        vocabulary=vocabulary,
        base_dir=cell.base_dir,
        max_total_tokens=context_tokens,
    )
