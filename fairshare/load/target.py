"""Where a tenant's requests go, and what they look like on the wire."""

from __future__ import annotations

from dataclasses import dataclass, field

from fairshare.errors import SpecError
from fairshare.spec.scenario import Api
from fairshare.spec.workload import Sampling
from fairshare.wire import openai, tgi
from fairshare.wire.answer import AnswerReader
from fairshare.wire.headers import FAIRNESS_HEADERS
from fairshare.workload.requests import PlannedRequest


@dataclass(slots=True)
class Target:
    """A tenant's server and how to speak to it.

    ``base_url`` is ``http(s)://...``, or ``unix:PATH`` of an engine's own socket.
    ``continuous_usage`` says that the server understands vLLM's extra fields; ``timeout_s``
    limits a whole request, ``stall_s`` the silence of a stream after its first token. The key
    travels in a header and appears in no record. ``labelled`` says in each body, too, whose request
    it is and which call of what: headers do not reach a fair scheduler inside vLLM.
    """

    tenant: str
    server: str
    base_url: str
    model: str
    api: Api
    stream: bool
    api_key: str | None = field(repr=False)
    token_id_prompts: bool
    continuous_usage: bool
    sampling: Sampling
    timeout_s: float
    stall_s: float
    priority: int | None = None
    labelled: bool = False

    @property
    def path(self) -> str:
        """The path that requests are posted to."""
        if self.api is Api.TGI:
            return tgi.STREAM_PATH if self.stream else tgi.GENERATE_PATH
        return openai.CHAT_PATH if self.api is Api.CHAT else openai.COMPLETIONS_PATH

    def headers(self) -> dict[str, str]:
        """The headers of every request; they tell gateways whose it is."""
        headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream" if self.stream else "application/json",
            "Accept-Encoding": "identity",
            **dict.fromkeys(FAIRNESS_HEADERS, self.tenant),
        }
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        return headers

    def reader(self) -> AnswerReader:
        """A reader for one answer."""
        return tgi.TgiReader() if self.api is Api.TGI else openai.OpenAiReader()

    def body(self, request: PlannedRequest) -> bytes:
        """The bytes to post.

        Raises:
            SpecError: the request has no prompt in the form that the server takes.
        """
        text = request.prompt_text
        if self.api is Api.COMPLETIONS:
            ids = request.prompt_ids if self.token_id_prompts else None
            prompt = ids if ids is not None else text
            if prompt is None:
                raise _no_prompt(request, "text prompts, since the server takes no token ids")
            return openai.completion_body(
                prompt,
                model=self.model,
                max_tokens=request.max_tokens,
                stream=self.stream,
                sampling=self.sampling,
                extras=self.continuous_usage,
                priority=self.priority,
                labels=self._labels(request),
            )
        if text is None:
            raise _no_prompt(request, f"text prompts, since {self.api} takes no token ids")
        if self.api is Api.TGI:
            return tgi.generate_body(text, max_tokens=request.max_tokens, sampling=self.sampling)
        return openai.chat_body(
            text,
            model=self.model,
            max_tokens=request.max_tokens,
            stream=self.stream,
            sampling=self.sampling,
            extras=self.continuous_usage,
            priority=self.priority,
            labels=self._labels(request),
        )

    def _labels(self, request: PlannedRequest) -> openai.Labels | None:
        if not self.labelled:
            return None
        turn = request.turn
        told = {"tenant": self.tenant}
        if turn is None:
            return told
        place = {name: getattr(turn, name) for name in ("app", "interaction", "call", "calls")}
        return told | {name: value for name, value in place.items() if value is not None}


def _no_prompt(request: PlannedRequest, needed: str) -> SpecError:
    return SpecError(f"tenant {request.tenant}, request {request.id}: it needs {needed}")
