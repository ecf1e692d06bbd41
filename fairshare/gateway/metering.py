"""What an answer costs, told while its bytes pass, and what of them the client is not to see.

Where the server states in each chunk how many tokens it has made, a search for that number is all
there is to do. Else events are read one by one. Either way bytes are handed on as they came, unless
the client must not see what only the gateway has asked for.
"""

from __future__ import annotations

import re
from typing import Protocol

from fairshare.wire.answer import AnswerReader, WireError
from fairshare.wire.sse import MAX_EVENT_BYTES, SseSplitter

MAX_WHOLE_BYTES = 16 << 20
"""Of an answer that is not streamed, so much is kept to be read; a longer one is not."""
_OUTPUT = b'"completion_tokens":'
_PROMPT = b'"prompt_tokens":'
_CACHED = b'"cached_tokens":'
_NUMBER = re.compile(rb"\s*(\d{1,15})(?=\D)")  # not one that the network has cut
_LONGEST_COUNT = 64  # bytes of a field that counts, with its value
_FIELD = b'"usage"'
# Quotes inside JSON strings are escaped, so no text that a model writes looks like this.
_USAGE = re.compile(rb'"usage"\s*:\s*(?:null|\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})')
_SPACE, _COMMA = b" ,"
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')


class Meter(Protocol):
    """Told all bytes of one answer's body."""

    @property
    def tokens(self) -> int:
        """Output tokens so far."""
        ...

    @property
    def prompt_tokens(self) -> int | None:
        """The server's count, once it has said it."""
        ...

    @property
    def cached_tokens(self) -> int | None:
        """The server's count, if it says it."""
        ...

    @property
    def error(self) -> bool:
        """Whether the server has told of an error in the middle of its answer."""
        ...

    def feed(self, data: bytes) -> bytes:
        """Take what came; what of it the client gets.

        Raises:
            WireError: an event without end, of which a part must be hidden.
        """
        ...

    def close(self) -> bytes:
        """The answer is over; what the client gets of what was held back."""
        ...


class UsageScan:
    """Finds the counts that a server states in each chunk of a single output."""

    def __init__(self) -> None:
        self.tokens = 0
        self.prompt_tokens: int | None = None
        self.cached_tokens: int | None = None
        self.error = False
        self._tail = b""

    def see(self, data: bytes) -> bool:
        """Take bytes, cut anywhere; whether there is any count in them, or need not be one."""
        if self._tail:
            data = self._tail + data
        self._tail = b"" if data.endswith(b"\n") else data[-_LONGEST_COUNT:]
        at = data.rfind(_OUTPUT)
        if at < 0:
            self.error = self.error or b'data: {"error"' in data
            return self.prompt_tokens is not None or b'"choices"' not in data
        self.tokens = max(self.tokens, _number(data, at + len(_OUTPUT)) or 0)
        if self.prompt_tokens is None:
            self.prompt_tokens = _found(data, _PROMPT)
        if (cached := _found(data, _CACHED)) is not None:
            self.cached_tokens = cached
        return True

    def end(self) -> None:
        """Nothing is kept."""


class EventReading:
    """Reads each event, as a client would; what cannot be read is not counted."""

    def __init__(self, reader: AnswerReader) -> None:
        self.tokens = 0
        self._reader: AnswerReader | None = reader
        self._answer = reader.answer
        self._events = SseSplitter()

    @property
    def prompt_tokens(self) -> int | None:
        """As the server has counted them."""
        return self._answer.prompt_tokens

    @property
    def cached_tokens(self) -> int | None:
        """As the server has counted them."""
        return self._answer.cached_tokens

    @property
    def error(self) -> bool:
        """Whether the server has told of one."""
        return self._answer.error is not None

    def see(self, data: bytes) -> bool:
        """Take bytes, cut anywhere."""
        if self._reader is not None:
            try:
                for event in self._events.feed(data):
                    self.tokens += self._reader.event(event)
            except WireError:
                self._reader = None
        return True

    def end(self) -> None:
        """Count what the server's own count has more."""
        self.tokens = max(self.tokens, self._answer.output_tokens or 0)


class Mask:
    """Takes out of a stream the usage that the client has not asked for.

    ``keep_last``: the client has asked for usage, but only at the end.
    """

    def __init__(self, *, keep_last: bool) -> None:
        self._keep_last = keep_last
        self._tail = b""

    def whole_events(self, data: bytes) -> bytes:
        """All events that are complete by now; the rest is kept for later.

        Raises:
            WireError: there is an event without end.
        """
        data = self._tail + data
        end = max(data.rfind(b"\n\n") + 2, data.rfind(b"\r\n\r\n") + 4)
        if end < 4:  # neither was found
            end = 0
        self._tail = data[end:]
        if len(self._tail) > MAX_EVENT_BYTES:
            raise WireError(f"an event is longer than {MAX_EVENT_BYTES} bytes")
        return data[:end]

    def hidden(self, data: bytes) -> bytes:
        """Whole events without their usage."""
        if _FIELD not in data:
            return data
        if _NO_CHOICES.search(data) is None:
            return _without_usage(data)
        events = re.split(rb"(?<=\n\n)|(?<=\r\n\r\n)", data)
        return b"".join(map(self._event, events))

    def rest(self) -> bytes:
        """What never became an event."""
        tail, self._tail = self._tail, b""
        return tail

    def _event(self, event: bytes) -> bytes:
        if _NO_CHOICES.search(event) is None or b'"error"' in event:
            return _without_usage(event)
        return event if self._keep_last or _FIELD not in event else b""


class StreamMeter:
    """The meter of a streamed answer."""

    def __init__(self, reader: AnswerReader, mask: Mask | None, *, continuous: bool) -> None:
        self._reader = reader
        self._counter: UsageScan | EventReading = (
            UsageScan() if continuous else EventReading(reader)
        )
        self._mask = mask

    @property
    def tokens(self) -> int:
        """Output tokens so far."""
        return self._counter.tokens

    @property
    def prompt_tokens(self) -> int | None:
        """The server's count, once it has said it."""
        return self._counter.prompt_tokens

    @property
    def cached_tokens(self) -> int | None:
        """The server's count, if it says it."""
        return self._counter.cached_tokens

    @property
    def error(self) -> bool:
        """Whether the server has told of an error."""
        return self._counter.error

    def feed(self, data: bytes) -> bytes:
        """See ``Meter``."""
        if self._mask is not None:
            data = self._mask.whole_events(data)
        if not self._counter.see(data):
            # It does not count in each chunk although it was asked to: count them here.
            self._counter = EventReading(self._reader)
            self._counter.see(data)
        return data if self._mask is None else self._mask.hidden(data)

    def close(self) -> bytes:
        """See ``Meter``."""
        self._counter.end()
        return b"" if self._mask is None else self._mask.rest()


class WholeMeter:
    """The meter of an answer that is not streamed: it is read at its end."""

    def __init__(self, reader: AnswerReader) -> None:
        self.tokens = 0
        self.prompt_tokens: int | None = None
        self.cached_tokens: int | None = None
        self.error = False
        self._reader = reader
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> bytes:
        """See ``Meter``."""
        self._size += len(data)
        if self._size <= MAX_WHOLE_BYTES:
            self._pieces.append(data)
        else:
            self._pieces.clear()
        return data

    def close(self) -> bytes:
        """See ``Meter``."""
        try:
            self.tokens = self._reader.whole(b"".join(self._pieces))
        except WireError:
            return b""  # the client gets it as it is, and is charged for its prompt
        answer = self._reader.answer
        self.prompt_tokens, self.cached_tokens = answer.prompt_tokens, answer.cached_tokens
        self.error = answer.error is not None
        return b""


def _without_usage(data: bytes) -> bytes:
    """Objects without their field ``usage`` and one of the commas beside it."""
    pieces: list[bytes] = []
    begin = 0
    at = data.find(_FIELD)
    while at >= 0:
        match = _USAGE.match(data, at)
        end = at + len(_FIELD) if match is None else match.end()
        if match is not None:
            start = at
            while start and data[start - 1] == _SPACE:
                start -= 1
            if start and data[start - 1] == _COMMA:
                start -= 1
            elif data[end : end + 1] == b",":
                end += 1
            pieces.append(data[begin:start])
            begin = end
        at = data.find(_FIELD, end)
    return b"".join((*pieces, data[begin:]))


def _found(data: bytes, name: bytes) -> int | None:
    at = data.rfind(name)
    return None if at < 0 else _number(data, at + len(name))


def _number(data: bytes, at: int) -> int | None:
    match = _NUMBER.match(data, at)
    return None if match is None else int(match[1])
