"""Server-sent events, split out of raw bytes as they arrive.

The rules are those of the WHATWG HTML standard, section 9.2, as far as LLM servers use them: only
``data`` counts; comments and other fields are skipped; lines end with LF, CRLF or CR.
"""

from __future__ import annotations

from fairshare.wire.answer import WireError

MAX_EVENT_BYTES = 1 << 20
_LF, _CR = b"\n\r"
_BOM = b"\xef\xbb\xbf"


class SseSplitter:
    """Cuts a byte stream into the data of its events, whatever the cuts of the network.

    Works on bytes, so characters may be split anywhere. An event longer than ``max_event_bytes``
    is an error (a line without end would otherwise fill the memory); the events before it are
    still given.
    """

    __slots__ = ("_after_cr", "_max", "_tail", "_too_long")

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max = max_event_bytes
        self._tail = bytearray()  # an event whose end has not come yet
        self._after_cr = False
        self._too_long = False

    def feed(self, data: bytes) -> list[bytes]:
        """The data of each event that ``data`` completes, in order.

        Raises:
            WireError: an event is longer than allowed. Events completed before it are returned
                first; the error comes with the next call.
        """
        event = data[6:-2]
        if (
            # Nearly always it is exactly one whole event of one line. (To look for a number is much
            # faster than to look for a byte string.)
            data.startswith(b"data: ")
            and data.endswith(b"\n\n")
            and _LF not in event
            and _CR not in event
            and not self._tail
            and not self._after_cr
            and len(data) <= self._max
            and not self._too_long
        ):
            return [event]
        self._check()
        if self._after_cr or _CR in data:
            data = self._with_plain_line_ends(data)
        if not self._tail:
            end = data.rfind(b"\n\n")
            if end < 0:
                return self._keep(data)
            block, rest = data[:end], data[end + 2 :]
        else:
            seen = len(self._tail)
            self._tail += data
            end = self._tail.rfind(b"\n\n", max(0, seen - 1))
            if end < 0:
                return self._keep(b"")
            block, rest = bytes(self._tail[:end]), bytes(self._tail[end + 2 :])
            self._tail.clear()
        events = self._events(block)
        if rest and not self._too_long:
            self._keep_quietly(rest)
        return events

    def close(self) -> list[bytes]:
        """The last event, where its blank line is missing; a line that was cut is dropped.

        Raises:
            WireError: an event was longer than allowed.
        """
        self._check()
        block = bytes(self._tail[: self._tail.rfind(b"\n") + 1])
        self._tail.clear()
        return self._events(block)

    def _events(self, block: bytes) -> list[bytes]:
        found: list[bytes] = []
        lines = block.split(b"\n")
        # Nearly always every other line is empty; to split at one byte is faster than at two.
        for event in block.split(b"\n\n") if any(lines[1::2]) else lines[::2]:
            if len(event) > self._max:
                self._too_long = True
                break
            if event.startswith(b"data: ") and _LF not in event:
                found.append(event[6:])
            elif (data := _data_of(event)) is not None:
                found.append(data)
        return found

    def _keep(self, data: bytes) -> list[bytes]:
        self._keep_quietly(data)
        self._check()
        return []

    def _keep_quietly(self, data: bytes) -> None:
        self._tail += data
        if len(self._tail) > self._max + 1:  # + 1: the first half of its blank line
            self._too_long = True

    def _check(self) -> None:
        if self._too_long:
            raise WireError(f"an event is longer than {self._max} bytes")

    def _with_plain_line_ends(self, data: bytes) -> bytes:
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]  # the line feed of a CRLF whose CR came with the last chunk
            self._after_cr = False
            if b"\r" not in data:
                return data
        if data:
            self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _data_of(event: bytes) -> bytes | None:
    """The ``data`` lines of one event, joined; None if it has none."""
    values = []
    for line in event.removeprefix(_BOM).split(b"\n"):
        if line.startswith(b"data:"):
            values.append(line[5:].removeprefix(b" "))
        elif line == b"data":
            values.append(b"")
    return b"\n".join(values) if values else None
