"""One HTTP/1.1 response, read from raw bytes as they arrive (RFC 9112), bounded in memory.

As much of HTTP as a load generator meets: informational responses are skipped; a body is chunked,
of stated length, or ends with the connection. The body's bytes are handed on as they come, so a
body may be endless; a head, a chunk's size line or trailers may not.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum, auto

MAX_HEAD_BYTES = 64 << 10
MAX_LINE_BYTES = 4 << 10  # a chunk's size with its extensions
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)(?: [^\r\n]*)?")
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?")
_NO_BODY = (204, 304)


class HttpError(ValueError):
    """What came is not HTTP, or not all of it came; ``body`` is what of the body came before."""

    body = b""


class _Next(Enum):
    """What comes next in a chunked body."""

    SIZE = auto()
    DATA = auto()
    END = auto()
    TRAILERS = auto()


class Http1Response:
    """Feed it what arrives; it gives back the body.

    ``status`` is None until the head is complete; ``fields`` are its headers by lower-case name;
    ``complete`` says that HTTP's end of the body was seen; ``reusable`` that the connection can
    then carry another request.
    """

    __slots__ = (
        "_at_chunk",
        "_kept",
        "_left",
        "_next",
        "_read",
        "complete",
        "content_type",
        "fields",
        "retry_after",
        "reusable",
        "status",
    )

    def __init__(self) -> None:
        self.status: int | None = None
        self.fields: dict[bytes, bytes] = {}
        self.content_type = ""
        self.retry_after = ""
        self.complete = False
        self.reusable = True
        # A function and no bound method: that would be a cycle, and collection is paused in a run.
        self._read: Callable[[Http1Response, bytes], bytes] = Http1Response._head
        self._next = _Next.SIZE
        self._at_chunk = False  # a chunk begins with the next byte
        self._kept = b""  # the beginning of a line or of a head whose end has not come yet
        self._left = 0  # bytes of the chunk, or of the whole body, that are still to come

    def feed(self, data: bytes) -> bytes:
        """Take what came; return the bytes of the body in it.

        Raises:
            HttpError: it is not HTTP.
        """
        if self._at_chunk:
            # Nearly always exactly one whole chunk comes, and this is done a million times.
            end = data.find(b"\r\n", 0, 18)
            length = len(data) - end - 4
            if end > 0 and length > 0 and data.endswith(b"\r\n") and data[:end] == b"%x" % length:
                return data[end + 2 : -2]
        read = self._read
        return read(self, data)

    def close(self) -> None:
        """The connection has ended.

        Raises:
            HttpError: before the body did.
        """
        self.reusable = False
        if self._read is Http1Response._until_close:
            self._end()
        if not self.complete:
            where = "before an answer" if self.status is None else "inside the answer"
            raise HttpError(f"the connection was closed {where}")

    def _end(self) -> None:
        self._read = Http1Response._too_much
        self.complete = True

    def _head(self, data: bytes) -> bytes:
        data = self._kept + data
        while True:
            end = data.find(b"\r\n\r\n")
            if max(end, 0 if end >= 0 else len(data)) > MAX_HEAD_BYTES:
                raise HttpError(f"a head of more than {MAX_HEAD_BYTES} bytes")
            if end < 0:
                _check_beginning(data)
                self._kept = data
                return b""
            head, data = data[:end], data[end + 4 :]
            self._kept = b""
            if self._take_head(head):
                return self._read(self, data) if data else b""

    def _take_head(self, head: bytes) -> bool:
        """Take a head; return whether it is the answer's own (and no ``100 Continue``)."""
        first, *lines = head.split(b"\r\n")
        match = _STATUS_LINE.fullmatch(first)
        if match is None:
            raise HttpError(f"no status line: {_shown(first)}")
        status = int(match[2])
        if status < 200:
            if status == 101:
                raise HttpError("the server switches protocols")
            return False
        self.status = status
        self.fields = fields = _fields(lines)
        self.content_type = fields.get(b"content-type", b"").decode("latin-1")
        self.retry_after = fields.get(b"retry-after", b"").decode("latin-1")
        connection = fields.get(b"connection", b"").lower()
        self.reusable = b"close" not in connection and (
            match[1] == b"1" or b"keep-alive" in connection
        )
        self._begin_body(fields)
        return True

    def _begin_body(self, fields: dict[bytes, bytes]) -> None:
        length = fields.get(b"content-length")
        if self.status in _NO_BODY:
            self._end()
        elif (coding := fields.get(b"transfer-encoding")) is not None:
            if coding.strip().lower() != b"chunked":
                raise HttpError(f"transfer encoding {_shown(coding)}")
            if length is not None:
                self.reusable = False  # RFC 9112, 6.3: somebody may be trying something
            self._read = Http1Response._chunks
            self._at_chunk = True
        elif length is None:
            self._read = Http1Response._until_close
        else:
            if not length.isdigit() or len(length) > 18:
                raise HttpError(f"content length {_shown(length)}")
            self._left = int(length)
            self._read = Http1Response._of_length
            if not self._left:
                self._end()

    def _until_close(self, data: bytes) -> bytes:
        return data

    def _too_much(self, data: bytes) -> bytes:
        """More than was asked for."""
        if data:
            self.reusable = False
        return b""

    def _of_length(self, data: bytes) -> bytes:
        if len(data) > self._left:
            data = data[: self._left]
            self.reusable = False
        self._left -= len(data)
        if not self._left:
            self._end()
        return data

    def _chunks(self, data: bytes) -> bytes:
        """The payload of the chunks in ``data``."""
        found: list[bytes] = []
        try:
            self._walk_chunks(self._kept + data, found)
        except HttpError as error:
            error.body = b"".join(found)
            raise
        self._at_chunk = self._next is _Next.SIZE and not self._kept
        return found[0] if len(found) == 1 else b"".join(found)

    def _walk_chunks(self, data: bytes, found: list[bytes]) -> None:
        self._kept = b""
        at = _take_whole_chunks(data, found) if self._next is _Next.SIZE else 0
        size = len(data)
        while at < size:
            if self._next is _Next.SIZE:
                end = data.find(b"\r\n", at, at + MAX_LINE_BYTES)
                if end < 0:
                    self._keep(data[at:], MAX_LINE_BYTES, "a chunk's size")
                    break
                self._begin_chunk(data[at:end])
                at = end + 2
            elif self._next is _Next.DATA:
                piece = data[at : at + self._left]
                found.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._next = _Next.END
            elif self._next is _Next.END:
                end_mark = data[at : at + 2]
                if not b"\r\n".startswith(end_mark):
                    raise HttpError(f"a chunk is longer than it says: {_shown(data[at:])}")
                if len(end_mark) < 2:
                    self._kept = end_mark
                    break
                at += 2
                self._next = _Next.SIZE
            else:
                self._trailers(data[at:])
                break

    def _begin_chunk(self, line: bytes) -> None:
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise HttpError(f"not the size of a chunk: {_shown(line)}")
        self._left = int(match[1], 16)
        self._next = _Next.DATA if self._left else _Next.TRAILERS

    def _trailers(self, data: bytes) -> None:
        """Pass over trailers, up to the empty line that ends the body."""
        if data.startswith(b"\r\n"):
            end = 2
        elif (found := data.find(b"\r\n\r\n")) >= 0:
            end = found + 4
        else:
            self._keep(data, MAX_HEAD_BYTES, "the trailers")
            return
        self._end()
        if len(data) > end:
            self.reusable = False

    def _keep(self, data: bytes, limit: int, what: str) -> None:
        if len(data) >= limit:
            raise HttpError(f"{what} of more than {limit} bytes: {_shown(data)}")
        self._kept = data


def _take_whole_chunks(data: bytes, found: list[bytes]) -> int:
    """Put the first chunks into ``found``, as long as they are whole and plainly written.

    Returns where they end: the rest is for slower eyes.
    """
    at = 0
    while (end := data.find(b"\r\n", at, at + 18)) > 0:
        line = data[at:end]
        try:
            length = int(line, 16)
        except ValueError:
            break
        stop = end + 2 + length
        if length <= 0 or line != b"%x" % length or data[stop : stop + 2] != b"\r\n":
            break
        found.append(data[end + 2 : stop])
        at = stop + 2
    return at


def _check_beginning(data: bytes) -> None:
    """Fail at once on what cannot become a status line, however long it goes on."""
    start = b"HTTP/1."
    if not (data.startswith(start) or start.startswith(data)):
        raise HttpError(f"no status line: {_shown(data)}")


def _fields(lines: list[bytes]) -> dict[bytes, bytes]:
    """The header fields by lower-case name; of repeated ones that matter, all must agree."""
    fields: dict[bytes, bytes] = {}
    for line in _unfolded(lines):
        name, colon, value = line.partition(b":")
        if not colon or not name or name != name.strip():
            raise HttpError(f"not a header line: {_shown(line)}")
        key, value = name.lower(), value.strip()
        if key in (b"content-length", b"transfer-encoding") and fields.get(key, value) != value:
            raise HttpError(f"two different headers {_shown(name)}")
        fields[key] = value
    return fields


def _unfolded(lines: list[bytes]) -> list[bytes]:
    """The header lines, each with those that continue it (RFC 9112, 5.2)."""
    whole: list[bytes] = []
    for line in lines:
        if whole and line[:1] in (b" ", b"\t"):
            whole[-1] += b" " + line.strip()
        else:
            whole.append(line)
    return whole


def _shown(data: bytes) -> str:
    """The beginning of ``data`` as one line that can be shown."""
    return " ".join(data[:60].decode("latin-1").split())
