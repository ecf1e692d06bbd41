"""A server's metrics page."""

from __future__ import annotations

import pytest

from fairshare.wire.exposition import parse_metrics

VLLM = """
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="tiny"} 3.0
vllm:num_requests_running{engine="1",model_name="tiny"} 2.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="tiny"} 1.0
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{engine="0",model_name="tiny",reason="capacity"} 1.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.25
# TYPE vllm:num_preemptions counter
vllm:num_preemptions_total{engine="0",model_name="tiny"} 4.0
vllm:num_preemptions_created{engine="0",model_name="tiny"} 1.7e+09
# TYPE vllm:prompt_tokens counter
vllm:prompt_tokens_total{engine="0",model_name="tiny"} 57.0
"""


def test_vllms_figures_are_found() -> None:
    """Figures are summed over engines; a timestamp or a split by reason is not counted in."""
    metrics = parse_metrics(VLLM)
    assert (metrics.running, metrics.waiting, metrics.busy) == (5.0, 1.0, 6.0)
    assert metrics.kv_usage == 0.25
    assert metrics.preemptions_total == 4.0
    assert metrics.prompt_tokens_total == 57.0


def test_what_is_not_exported_is_absent_and_not_zero() -> None:
    """A figure that the server does not export stays None."""
    metrics = parse_metrics("")
    assert set(metrics.as_dict().values()) == {None}
    assert metrics.busy == 0


def test_other_engines_names_are_known() -> None:
    """TGI's and SGLang's queue figures mean the same as vLLM's."""
    assert parse_metrics("tgi_queue_size 2\ntgi_batch_current_size 3\n").busy == 5
    assert parse_metrics("sglang:num_running_reqs 1\n").running == 1


def test_no_number_is_no_figure() -> None:
    """A gauge that says NaN is absent."""
    assert parse_metrics("vllm:num_requests_running NaN\n").running is None


def test_garbage_is_refused_or_absent() -> None:
    """A broken line is an error; a page of something else has no figures."""
    with pytest.raises(ValueError, match=r"."):
        parse_metrics("vllm:num_requests_running{a=x}} lots\n")
    assert parse_metrics("<html>vllm:num_requests_running 5</html>").running is None
