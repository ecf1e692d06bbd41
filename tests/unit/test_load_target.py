"""Targets know their paths, headers and bodies."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from fairshare.errors import SpecError
from fairshare.load.target import Target
from fairshare.spec.scenario import Api
from fairshare.spec.workload import Sampling
from fairshare.workload.requests import PlannedRequest
from fairshare.workload.turns import Turn

TARGET = Target(
    "a", "s0", "http://h", "m", Api.COMPLETIONS, True, "sk-1", True, True, Sampling(), 1, 1
)
BOTH = PlannedRequest("1", "a", None, [1, 2], "text", 2, 5)


@pytest.mark.parametrize(
    ("api", "stream", "path"),
    [
        (Api.COMPLETIONS, True, "/v1/completions"),
        (Api.CHAT, False, "/v1/chat/completions"),
        (Api.TGI, True, "/generate_stream"),
        (Api.TGI, False, "/generate"),
    ],
)
def test_path_follows_protocol_and_streaming(api: Api, stream: bool, path: str) -> None:
    """Each protocol has its endpoint; TGI has one for each way."""
    assert replace(TARGET, api=api, stream=stream).path == path


def test_key_is_in_the_header_and_not_in_the_representation() -> None:
    """A target that is printed or logged does not tell its key."""
    assert TARGET.headers()["Authorization"] == "Bearer sk-1"
    assert "sk-1" not in repr(TARGET)
    assert "Authorization" not in replace(TARGET, api_key=None).headers()


@pytest.mark.parametrize("api", [Api.COMPLETIONS, Api.CHAT])
def test_a_priority_travels_in_the_body_where_there_is_one(api: Api) -> None:
    """It is vLLM that takes it there; without one nothing is said, and zero is one."""
    for priority in (-3, 0, 5):
        body = replace(TARGET, api=api, priority=priority).body(BOTH)
        assert orjson.loads(body)["priority"] == priority
    assert "priority" not in orjson.loads(replace(TARGET, api=api).body(BOTH))


def test_each_request_says_whose_it_is() -> None:
    """Gateways tell tenants apart by either header."""
    headers = TARGET.headers()
    assert headers["x-gateway-inference-fairness-id"] == "a"
    assert headers["x-llm-d-inference-fairness-id"] == "a"


def test_prompt_form_follows_what_the_server_takes() -> None:
    """Token ids go to servers that take them, text to the others; text alone is sent as text."""
    assert orjson.loads(TARGET.body(BOTH))["prompt"] == [1, 2]
    assert orjson.loads(replace(TARGET, token_id_prompts=False).body(BOTH))["prompt"] == "text"
    only_text = replace(BOTH, prompt_ids=None)
    assert orjson.loads(TARGET.body(only_text))["prompt"] == "text"


@pytest.mark.parametrize(
    "target",
    [
        replace(TARGET, token_id_prompts=False),
        replace(TARGET, api=Api.CHAT),
        replace(TARGET, api=Api.TGI),
    ],
)
def test_missing_text_is_the_users_error(target: Target) -> None:
    """Token ids alone cannot be sent where text is needed; the message names the request."""
    with pytest.raises(SpecError, match=r"request 1.*text prompts"):
        target.body(replace(BOTH, prompt_text=None))


@pytest.mark.parametrize("api", [Api.COMPLETIONS, Api.CHAT])
def test_a_labelled_body_says_whose_it_is_and_which_call_of_what(api: Api) -> None:
    """Headers do not reach vLLM's scheduler, its extra arguments do; unasked, nothing is said."""
    target = replace(TARGET, api=api, labelled=True)
    assert orjson.loads(target.body(BOTH))["vllm_xargs"] == {"tenant": "a"}
    turned = replace(BOTH, turn=Turn("shop", "a-i1", 2, 3, think_s=1.0))
    assert orjson.loads(target.body(turned))["vllm_xargs"] == {
        "tenant": "a",
        "app": "shop",
        "interaction": "a-i1",
        "call": 2,
        "calls": 3,
    }
    lone = replace(BOTH, turn=Turn("shop"))
    assert orjson.loads(target.body(lone))["vllm_xargs"] == {"tenant": "a", "app": "shop"}
    assert "vllm_xargs" not in orjson.loads(replace(TARGET, api=api).body(turned))
