"""An engine's metrics page, boiled down to the few figures that most engines have."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

# Sample names by engine: vLLM (and the virtual server), SGLang, TGI.
_NAMES = {
    "running": ("vllm:num_requests_running", "sglang:num_running_reqs", "tgi_batch_current_size"),
    "waiting": ("vllm:num_requests_waiting", "sglang:num_queue_reqs", "tgi_queue_size"),
    "kv_usage": ("vllm:kv_cache_usage_perc", "sglang:token_usage"),
    "preemptions_total": ("vllm:num_preemptions_total",),
    "prompt_tokens_total": ("vllm:prompt_tokens_total", "sglang:prompt_tokens_total"),
    "generation_tokens_total": ("vllm:generation_tokens_total", "sglang:generation_tokens_total"),
}
_FIELDS = {name: field for field, names in _NAMES.items() for name in names}
_KNOWN = tuple(_FIELDS)


@dataclass(slots=True)
class ServerMetrics:
    """One look at a server; what it does not export is None. ``kv_usage`` runs from 0 to 1."""

    running: float | None = None
    waiting: float | None = None
    kv_usage: float | None = None
    preemptions_total: float | None = None
    prompt_tokens_total: float | None = None
    generation_tokens_total: float | None = None

    @property
    def busy(self) -> float:
        """Requests running or waiting, as far as the server says."""
        return (self.running or 0) + (self.waiting or 0)

    def as_dict(self) -> dict[str, Any]:
        """The figures by name."""
        return asdict(self)


def parse_metrics(text: str) -> ServerMetrics:
    """The figures of a Prometheus text page, summed over engines and models.

    Only the lines that hold them are parsed: vLLM's page has hundreds more, and parsing all would
    hold up the load generator, which shares this process, for ten milliseconds each time.

    Raises:
        ValueError: such a line is not one of a metrics page.
    """
    from prometheus_client.parser import (  # noqa: PLC0415  (not needed to start a server)
        text_string_to_metric_families,
    )

    metrics = ServerMetrics()
    lines = [line for line in text.splitlines() if line.startswith(_KNOWN)]
    for family in text_string_to_metric_families("\n".join([*lines, ""])):
        for sample in family.samples:
            field = _FIELDS.get(sample.name)
            if field is not None and sample.value == sample.value:  # NaN is no figure
                setattr(metrics, field, (getattr(metrics, field) or 0.0) + sample.value)
    return metrics
