"""Whose a request is, and what it asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from multidict import CIMultiDict

from fairshare.errors import SpecError
from fairshare.gateway.asked import BadRequestError, read_asked, with_priority
from fairshare.gateway.forwarding import BadHeaderError, hints
from fairshare.gateway.identity import (
    BadNameError,
    Identity,
    Keys,
    UnauthorizedError,
    keys_of,
)
from fairshare.gateway.settings import GatewaySettings
from fairshare.gateway.tenants_file import read_tenants

KEYS = Keys({"alice": "key-of-alice", "bob": "key-of-bob"}, trusted="key-of-the-edge")


def identity(**given: Any) -> Identity:
    """An identity with settings."""
    return Identity(GatewaySettings(upstream="http://h:1", **given), KEYS)


def tenant(who: Identity, user: object = None, **headers: str) -> str:
    """Whose a request with these headers is."""
    given = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    return who.tenant(who.caller(given), given, user)


def test_a_key_says_whose_a_request_is_whatever_its_headers_claim() -> None:
    """A tenant cannot speak for another one."""
    claim = {"x_fairshare_tenant": "bob", "x_gateway_inference_fairness_id": "bob"}
    assert tenant(identity(), authorization="Bearer key-of-alice", **claim) == "alice"
    assert tenant(identity(), x_api_key="key-of-bob") == "bob"
    assert tenant(identity(allow_body_user=True), "bob", x_api_key="key-of-alice") == "alice"


def test_only_a_trusted_caller_names_the_tenant() -> None:
    """All three headers are believed of who has the trusted key, and of nobody else."""
    for header in (
        "x_fairshare_tenant",
        "x_gateway_inference_fairness_id",
        "x_llm_d_inference_fairness_id",
    ):
        named: dict[str, str] = {header: "carol"}
        assert tenant(identity(), authorization="bearer key-of-the-edge", **named) == "carol"
        assert tenant(identity(), x_fairshare_key="key-of-the-edge", **named) == "carol"
        assert tenant(identity(allow_anonymous=True), **named) == "default"


def test_who_has_no_key_is_refused_unless_that_is_allowed() -> None:
    """With keys set up nobody comes in without one; the body's user counts only if allowed."""
    for wrong in ({}, {"authorization": "Bearer key-of-Alice"}, {"x_api_key": "é\udc80"}):
        with pytest.raises(UnauthorizedError):
            tenant(identity(), "eve", **wrong)
    assert tenant(identity(allow_anonymous=True), "eve") == "default"
    assert tenant(identity(allow_anonymous=True, allow_body_user=True), "eve") == "eve"


@pytest.mark.parametrize("name", ["a\nb", "x" * 129, "\udc80", "\x1b[2J"])
def test_names_that_nobody_can_have_are_refused(name: str) -> None:
    """Control characters, broken bytes and endless names reach neither logs nor metrics."""
    with pytest.raises(BadNameError):
        tenant(identity(), authorization="Bearer key-of-the-edge", x_fairshare_tenant=name)


def test_names_beyond_the_limit_are_one_tenant() -> None:
    """Inventing names makes neither more tenants nor more metrics than allowed."""
    who = identity(max_tenants=2)
    edge = "Bearer key-of-the-edge"
    found = [tenant(who, authorization=edge, x_fairshare_tenant=f"t{n}") for n in range(4)]
    assert found == ["t0", "t1", "others", "others"]
    assert tenant(who, authorization=edge, x_fairshare_tenant="t1") == "t1"


def test_keys_come_from_the_environment_and_must_differ() -> None:
    """A key that is missing, or that two callers share, is found at the start."""
    settings = GatewaySettings(
        upstream="http://h:1", tenants={"a": {"key_env": "A"}}, trusted_key_env="T"
    )
    assert keys_of(settings, {"A": "one", "T": "two"}).tenants == {"a": "one"}
    assert "one" not in repr(keys_of(settings, {"A": "one", "T": "two"}))
    for wrong in ({"A": "one"}, {"A": "same", "T": "same"}):
        with pytest.raises(SpecError):
            keys_of(settings, wrong)


def test_a_file_with_keys_must_be_its_owners_alone(tmp_path: Path) -> None:
    """Keys that others can read are refused, with the command that helps; none is shown."""
    path = tmp_path / "tenants.yaml"
    path.write_text("alice: {key: secret-secret, weight: 2}\nbob:\n")
    path.chmod(0o644)
    with pytest.raises(SpecError, match="chmod 600"):
        read_tenants(path)
    path.chmod(0o600)
    terms, keys = read_tenants(path)
    assert (terms["alice"].weight, keys) == (2, {"alice": "secret-secret"})
    path.write_text("alice: {key: [secret-secret")
    path.chmod(0o600)
    with pytest.raises(SpecError) as caught:
        read_tenants(path)
    assert "secret" not in str(caught.value)


def ask(path: str = "/v1/completions", **body: Any) -> Any:
    """What a body asks for."""
    return read_asked(path, orjson.dumps(body), 1000)


def test_token_ids_are_counted_and_text_is_estimated() -> None:
    """The prompt's length is exact where it can be, and else a quarter of its characters."""
    assert ask(prompt=[1, 2, 3]).prompt_tokens == 3
    assert ask(prompt=[[1, 2], [3, 4, 5]]).prompt_tokens == 5
    assert ask(prompt="x" * 401).prompt_tokens == 101
    parts = [{"type": "text", "text": "x" * 40}, {"type": "image_url", "image_url": {}}]
    messages = [{"role": "user", "content": "x" * 40}, {"role": "user", "content": parts}]
    assert ask("/v1/chat/completions", messages=messages).prompt_tokens == 14 + 14 + 256
    assert ask("/generate", inputs="x" * 8).prompt_tokens == 2


def test_outputs_are_reserved_for_all_prompts_and_choices() -> None:
    """n, best_of and several prompts multiply what a request may produce."""
    assert ask(prompt="a", max_tokens=10, n=3).output_tokens == 30
    assert ask(prompt=["a", "b"], max_tokens=10, n=2, best_of=4).output_tokens == 80
    assert ask("/generate", inputs="a", parameters={"best_of": 2}).output_tokens == 2000
    assert ask(prompt="a").output_tokens == 16
    assert ask("/v1/chat/completions", messages=[]).output_tokens == 1000
    assert ask(prompt="a", max_tokens=10**18).output_tokens == 10_000_000
    assert ask(prompt="a", max_tokens=-5, n=True).output_tokens == 16


@pytest.mark.parametrize("five", [5, 5.0, "5"])
def test_numbers_are_read_as_servers_read_them(five: object) -> None:
    """Several outputs are several, however their number is written."""
    asked = ask(prompt="abc", n=five, max_tokens=five)
    assert (asked.outputs, asked.output_tokens) == (5, 25)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'{"stream_options": 3}', b'{"parameters": 1}'])
def test_bodies_that_cannot_be_are_refused(raw: bytes) -> None:
    """What no server could answer is a bad request and never a fault of ours."""
    with pytest.raises(BadRequestError):
        read_asked("/generate" if b"param" in raw else "/v1/completions", raw, 10)


def test_the_tenant_in_the_body_is_the_gateways_word() -> None:
    """A client's own claim is overwritten, or taken out where the server is told nothing."""
    claimed = ask(prompt="a", vllm_xargs={"tenant": "bob", "x": 1})
    assert claimed.name_tenant("alice")
    assert claimed.body["vllm_xargs"] == {"tenant": "alice", "x": 1}
    assert claimed.name_tenant(None)
    assert claimed.body["vllm_xargs"] == {"x": 1}
    assert not ask(prompt="a").name_tenant(None)


def test_a_priority_is_put_into_any_object() -> None:
    """The rank goes in front of whatever the body holds."""
    assert orjson.loads(with_priority(b"{}", 3)) == {"priority": 3}
    assert orjson.loads(with_priority(b'{"a":1}', -2)) == {"priority": -2, "a": 1}


def test_hints_are_read_and_checked() -> None:
    """Applications, interactions and deadlines come by headers, within their limits."""
    said = hints(
        CIMultiDict(
            {
                "X-Fairshare-App": "mail",
                "X-Fairshare-Interaction": "i1",
                "X-Fairshare-Call": "2",
                "X-Fairshare-Calls": "3",
                "x-slo-ttft-ms": "250",
            }
        ),
        {},
    )
    assert (said.app, said.interaction, said.call, said.calls) == ("mail", "i1", 2, 3)
    assert said.deadline_s == 0.25
    for wrong in (
        {"x-fairshare-app": "a", "x-fairshare-call": "0"},
        {"x-fairshare-app": "a", "x-fairshare-call": "٣"},
        {"x-fairshare-app": "a", "x-fairshare-call": "4", "x-fairshare-calls": "3"},
        {"x-slo-ttft-ms": "nan"},
    ):
        with pytest.raises(BadHeaderError):
            hints(CIMultiDict(wrong), {})
