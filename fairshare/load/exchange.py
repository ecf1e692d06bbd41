"""One request and its answer, written into one record."""

from __future__ import annotations

import asyncio
import time

from fairshare.load.ahead import Prepared
from fairshare.load.lane import Lane
from fairshare.load.target import Target
from fairshare.load.transport import TransportError
from fairshare.load.watchdog import Watchdog
from fairshare.records import ErrorKind, RequestRecord
from fairshare.spec.scenario import Api
from fairshare.wire.answer import (
    AnswerReader,
    WireError,
    error_of_body,
    error_within,
    excerpt,
    json_object,
)
from fairshare.wire.retry_after import retry_after_s
from fairshare.wire.sse import SseSplitter

UNFINISHED_TEXT = "still running when the cell ended; cancelled by the load generator"
MAX_TEXT = 300  # characters of an error's text
MAX_WHOLE_BYTES = 16 << 20  # an answer that is not streamed
MAX_ERROR_BYTES = 1 << 16  # what is read of an answer that is only quoted
# Chunks with tokens that an answer may have for each token that was asked for, and in any case. A
# correct server makes at most one, proxies may cut them; without a limit an endless stream would
# fill the memory until its time is over.
MAX_CHUNKS_PER_TOKEN = 4
MIN_CHUNK_LIMIT = 256
# Reads within an answer that are kept, stamped, to be parsed together: that is done in half of the
# time, since all that it touches is then at hand. Only small ones that end with an event are, so
# that an open stream holds little, and neither the first token nor the end waits.
MAX_KEPT = 8
MAX_KEPT_BYTES = 1 << 10
_EVENT_END = b"}\n\n"


class Exchange:
    """Receives one answer: stamps tokens into the record, then says how it ended.

    ``last_ns`` is when the stream last said something, from its first token on: before that,
    silence is the server's queue, which is no stall.
    """

    __slots__ = (
        "_api_key",
        "_body",
        "_chunk_ns",
        "_chunk_tokens",
        "_content_type",
        "_kept",
        "_limit",
        "_max_tokens",
        "_may_keep",
        "_most_chunks",
        "_origin_ns",
        "_policy_inside",
        "_reader",
        "_record",
        "_seen_event",
        "_splitter",
        "_stream",
        "last_ns",
    )

    def __init__(
        self, target: Target, record: RequestRecord, origin_ns: int, max_tokens: int
    ) -> None:
        self.last_ns: int | None = None
        self._record = record
        self._chunk_ns = record.chunk_ns
        self._chunk_tokens = record.chunk_tokens
        self._origin_ns = origin_ns
        self._max_tokens = max_tokens
        self._most_chunks = max(MIN_CHUNK_LIMIT, MAX_CHUNKS_PER_TOKEN * max_tokens)
        self._stream = target.stream
        self._api_key = target.api_key
        self._policy_inside = target.labelled
        self._reader: AnswerReader = target.reader()
        self._splitter = SseSplitter()
        self._body: bytearray | None = None  # collected instead of parsed as it comes
        self._limit = MAX_WHOLE_BYTES
        self._content_type = ""
        self._seen_event = False
        self._kept: list[tuple[int, bytes]] = []
        self._may_keep = target.api is not Api.TGI  # whose last event looks like any other

    def on_headers(
        self, now_ns: int, status: int, content_type: str, retry_after: str = ""
    ) -> None:
        """Note status and time; decide whether the body is a stream to parse."""
        self._record.headers_ns = now_ns - self._origin_ns
        self._record.status = status
        if status != 200 and retry_after:
            self._record.retry_after_s = retry_after_s(retry_after)
        self._content_type = content_type.partition(";")[0].strip().lower()
        if status != 200 or not self._stream or self._content_type != "text/event-stream":
            self._body = bytearray()
            if status != 200 or self._stream:
                self._limit = MAX_ERROR_BYTES

    def on_data(self, now_ns: int, data: bytes) -> bool:
        """Take bytes of the body; return whether the answer is complete."""
        if self._body is not None:
            self._body += data
            if len(self._body) > self._limit:
                raise self._not_expected()
            return False
        self._kept.append((now_ns - self._origin_ns, data))
        if self.last_ns is not None:
            self.last_ns = now_ns
            if (
                self._may_keep
                and len(self._kept) < MAX_KEPT
                and len(data) < MAX_KEPT_BYTES
                and data.endswith(_EVENT_END)
            ):
                return False
        return self._parse_kept()

    def _parse_kept(self) -> bool:
        """Parse what has come and was kept; return whether the answer is complete."""
        kept, self._kept = self._kept, []
        feed = self._splitter.feed
        for at_ns, data in kept:
            if self._events(at_ns, feed(data)):
                return True
            if len(self._chunk_ns) > self._most_chunks:
                raise WireError(
                    f"the stream goes on after {len(self._chunk_ns)} chunks with tokens, and "
                    f"only {self._max_tokens} tokens were asked for"
                )
        return False

    def on_end(self, now_ns: int) -> None:
        """The body has ended: parse what was collected, or the stream's last event."""
        at_ns = now_ns - self._origin_ns
        self._record.end_ns = at_ns
        if self._body is None:
            if not self._parse_kept():
                self._events(at_ns, self._splitter.close())
            return
        if self._record.status != 200:
            return
        if self._stream:
            self._not_streamed()
            return
        if tokens := self._reader.whole(bytes(self._body)):
            self._record.first_token_ns = at_ns
            self._chunk_ns.append(at_ns)
            self._chunk_tokens.append(tokens)

    def _events(self, at_ns: int, events: list[bytes]) -> bool:
        reader = self._reader
        answer = reader.answer
        for event in events:
            self._seen_event = True
            if tokens := reader.event(event):
                if self.last_ns is None:
                    self._record.first_token_ns = at_ns
                    self.last_ns = at_ns + self._origin_ns
                self._chunk_ns.append(at_ns)
                self._chunk_tokens.append(tokens)
            if answer.done:
                self._record.end_ns = at_ns
                return True
        return False

    def _not_streamed(self) -> None:
        """A 200 that is no stream: an error that the server told so, or nothing that we know."""
        try:
            error = error_within(json_object(bytes(self._body or b"")))
        except WireError:
            error = None
        if error is None:
            raise self._not_expected()
        self._reader.answer.error = error

    def _not_expected(self) -> WireError:
        expected = "an event stream" if self._stream else "an answer of bounded size"
        return WireError(
            f"expected {expected}, got {self._content_type or 'an untyped body'}: "
            f"{excerpt(bytes(self._body or b''))}"
        )

    def conclude(self, broke: tuple[ErrorKind, str] | None, now_ns: int) -> None:
        """Fill in the rest of the record; ``broke`` is what ended the exchange early, if anything.

        What the server itself said (a status, an error message) goes before how the connection
        ended; an answer that is complete stays good whatever became of its connection.
        """
        try:
            self._parse_kept()
        except WireError as error:  # it came before whatever ended the exchange
            broke = ErrorKind.BAD_RESPONSE, str(error)
        record, answer = self._record, self._reader.answer
        record.finish_reason = answer.finish_reason and _shown(answer.finish_reason)
        record.prompt_tokens = answer.prompt_tokens
        record.cached_tokens = answer.cached_tokens
        record.output_tokens = answer.output_tokens
        if self._stream:
            record.empty_chunks = answer.empty_chunks
        if record.end_ns is None or (broke and not answer.done):
            record.end_ns = now_ns - self._origin_ns
        failure = self._http_failure() or self._answer_failure(broke)
        if failure is not None:
            record.error, text = failure
            if self._api_key:  # some servers quote the key that they refuse
                text = text.replace(self._api_key, "***")
            record.error_text = _shown(text)

    def _http_failure(self) -> tuple[ErrorKind, str] | None:
        status = self._record.status
        if status is None or status == 200:
            return None
        said = error_of_body(bytes(self._body or b""))
        pause_s = self._record.retry_after_s
        text = str(status) if pause_s is None else f"{status}, retry after {pause_s:g} s"
        if said:
            text = f"{text}: {said}"
        if status == 429:
            return ErrorKind.THROTTLED, text
        if 400 <= status < 500:
            return ErrorKind.HTTP_4XX, text
        if 500 <= status < 600:
            return ErrorKind.HTTP_5XX, text
        return ErrorKind.BAD_RESPONSE, f"status {text}"

    def _answer_failure(self, broke: tuple[ErrorKind, str] | None) -> tuple[ErrorKind, str] | None:
        answer = self._reader.answer
        failure = answer.failure()
        if self._policy_inside and answer.ended_unbegun and failure is not None:
            text = "the scheduler inside the server ended it before its first token"
            failure = ErrorKind.THROTTLED, text
        if broke is None:
            if self._stream and not self._seen_event and answer.error is None:
                return ErrorKind.BAD_RESPONSE, "the stream ended without a single event"
            return failure
        if failure is None or failure[0] is ErrorKind.SERVER_ERROR:
            return failure
        return broke


def _shown(text: str) -> str:
    """One line that is safe to print and to store, whatever a server put into it."""
    printable = "".join(char if char.isprintable() else " " for char in text[: 4 * MAX_TEXT])
    return " ".join(printable.split())[:MAX_TEXT]


async def perform(lane: Lane, request: Prepared, record: RequestRecord, origin_ns: int) -> None:
    """Send one request and complete its record, whatever happens.

    Cancellation is an outcome too: the record says UNFINISHED, and nothing is raised.
    """
    target = lane.target
    exchange = Exchange(target, record, origin_ns, request.max_tokens)
    broke: tuple[ErrorKind, str] | None = None
    record.sent_ns = time.monotonic_ns() - origin_ns
    try:
        with Watchdog(exchange, timeout_s=target.timeout_s, stall_s=target.stall_s):
            await lane.transport.post(target.path, lane.headers, request.body, exchange)
    except TransportError as error:
        broke = error.kind, error.text
    except WireError as error:
        broke = ErrorKind.BAD_RESPONSE, str(error)
    except asyncio.CancelledError:
        broke = ErrorKind.UNFINISHED, UNFINISHED_TEXT
    except Exception as error:  # one record whatever happens; the text tells
        broke = ErrorKind.CLIENT, f"{type(error).__name__}: {error}"
    exchange.conclude(broke, time.monotonic_ns())
