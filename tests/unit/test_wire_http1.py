"""HTTP responses out of raw bytes, however the network cuts them and whatever a server sends."""

from __future__ import annotations

import random

import pytest

from fairshare.wire.http1 import MAX_HEAD_BYTES, MAX_LINE_BYTES, Http1Response, HttpError

STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n7;note=x\r\n, world\r\nA\r\n0123456789\r\n0\r\n\r\n"
)
BODY = b"hello, world0123456789"


def read(*pieces: bytes) -> tuple[Http1Response, bytes]:
    """A response fed with these pieces, and its body."""
    response = Http1Response()
    return response, b"".join([response.feed(piece) for piece in pieces])


def test_a_chunked_answer_gives_its_body_and_frees_the_connection() -> None:
    """Head, body and end are told, and another request can follow."""
    response, body = read(STREAM)
    assert body == BODY
    assert (response.status, response.complete, response.reusable) == (200, True, True)
    assert response.content_type == "text/event-stream; charset=utf-8"


def test_every_split_point_gives_the_same() -> None:
    """Wherever the network cuts, the body and the end are the same."""
    for cut in range(len(STREAM) + 1):
        response, body = read(STREAM[:cut], STREAM[cut:])
        assert (body, response.complete, response.reusable) == (BODY, True, True), cut


def test_single_bytes_give_the_same() -> None:
    """One byte at a time is the same answer."""
    response, body = read(*(STREAM[i : i + 1] for i in range(len(STREAM))))
    assert (body, response.complete) == (BODY, True)


def test_nothing_is_complete_before_its_end() -> None:
    """An answer that lacks any of its last bytes is not complete, and its end is an error."""
    for missing in range(1, len(STREAM)):
        response, _ = read(STREAM[:-missing])
        assert not response.complete
        with pytest.raises(HttpError, match="closed"):
            response.close()


def test_a_stated_length_ends_the_body() -> None:
    """Content-Length counts; what comes after it makes the connection unusable."""
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"
    response, body = read(head, b"ab", b"cd")
    assert (body, response.complete, response.reusable) == (b"abcd", True, True)
    response, body = read(head + b"abcdEXTRA")
    assert (body, response.complete, response.reusable) == (b"abcd", True, False)


def test_without_length_the_body_ends_with_the_connection() -> None:
    """An HTTP/1.0 answer is complete when the server closes."""
    response, body = read(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nall of", b" it")
    assert (body, response.complete) == (b"all of it", False)
    response.close()
    assert response.complete
    assert not response.reusable


def test_a_connection_that_was_closed_before_an_answer_says_so() -> None:
    """The usual sign of a server that died: no byte of an answer."""
    with pytest.raises(HttpError, match="before an answer"):
        Http1Response().close()


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_a_body_are_complete_at_once(status: int) -> None:
    """No body follows these, whatever their headers say."""
    response, body = read(b"HTTP/1.1 %d X\r\nContent-Length: 9\r\n\r\n" % status)
    assert (body, response.complete, response.status) == (b"", True, status)


def test_informational_answers_are_passed_over() -> None:
    """100 Continue is not the answer."""
    response, body = read(b"HTTP/1.1 100 Continue\r\n\r\n" + STREAM)
    assert (response.status, body) == (200, BODY)


@pytest.mark.parametrize(
    ("head", "reusable"),
    [
        (b"HTTP/1.1 200 OK\r\nConnection: close", False),
        (b"HTTP/1.1 200 OK\r\nConnection: Keep-Alive", True),
        (b"HTTP/1.0 200 OK", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive", True),
    ],
)
def test_the_server_says_whether_the_connection_stays(head: bytes, reusable: bool) -> None:
    """Version and Connection header decide about another request."""
    assert read(head + b"\r\nContent-Length: 0\r\n\r\n")[0].reusable is reusable


def test_trailers_are_passed_over() -> None:
    """Fields after the last chunk belong to HTTP, not to the body."""
    response, body = read(STREAM[:-2] + b"X-Checksum: 1\r\nY: 2\r\n", b"\r\n")
    assert (body, response.complete, response.reusable) == (BODY, True, True)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nSpace : x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1e3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        CHUNKED + b"zz\r\n",
        CHUNKED + b"0x5\r\nhello\r\n",
        CHUNKED + b"+5\r\nhello\r\n",
        CHUNKED + b"5\r\nhello!\r\n",
        CHUNKED + b"\r\n",
        CHUNKED + b"ffffffffffffffff\r\n",
    ],
    ids=lambda answer: answer[-24:],
)
def test_what_is_not_http_is_an_error(answer: bytes) -> None:
    """Another protocol, broken framing and smuggled lengths are named at once."""
    with pytest.raises(HttpError):
        read(answer)


def test_what_came_before_the_error_is_not_lost() -> None:
    """The body up to the point where it stops being HTTP comes with the error."""
    with pytest.raises(HttpError) as caught:
        read(CHUNKED + b"3\r\nabc\r\n2\r\nde\r\nzz\r\n")
    assert caught.value.body == b"abcde"


@pytest.mark.parametrize(
    ("start", "limit"),
    [
        (b"HTTP/1.1 200 OK\r\nX: ", MAX_HEAD_BYTES),
        (CHUNKED + b"5;", MAX_LINE_BYTES),
        (CHUNKED + b"0\r\nX: ", MAX_HEAD_BYTES),
    ],
    ids=["head", "chunk size", "trailers"],
)
def test_a_line_without_end_is_an_error_and_not_a_full_memory(start: bytes, limit: int) -> None:
    """Whatever has to be kept is bounded."""
    response = Http1Response()
    response.feed(start)
    with pytest.raises(HttpError, match=str(limit)):
        for _ in range(limit // 1000 + 2):
            response.feed(b"a" * 1000)


def test_an_endless_body_is_handed_on_and_not_kept() -> None:
    """A chunk of a terabyte passes through piece by piece."""
    response, _ = read(CHUNKED + b"ffffffffff\r\n")
    for _ in range(100):
        assert response.feed(b"x" * 10_000) == b"x" * 10_000
    assert not response._kept


def mutated(rng: random.Random) -> bytes:
    """The stream with a few bytes changed, lost, doubled or moved."""
    data = bytearray(STREAM)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data))
        match rng.randrange(4):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                del data[at : at + rng.randint(1, 8)]
            case 2:
                data[at:at] = data[at : at + rng.randint(1, 8)]
            case _:
                data[at:at] = rng.choice([b"\r\n", b"0\r\n\r\n", b"\r", b"\n", b"\0", b"5\r\n"])
        data = data or bytearray(b"x")
    return bytes(data)


def outcome(pieces: list[bytes]) -> tuple[bytes, bool, bool]:
    """Body so far, completeness, and whether it ended in an error."""
    response, body = Http1Response(), b""
    try:
        for piece in pieces:
            body += response.feed(piece)
    except HttpError:
        return body, False, True
    return body, response.complete, False


def check_mutations(seed: int, count: int) -> None:
    """Any stream, in any pieces: an answer or an HttpError, the same as in one piece."""
    rng = random.Random(seed)
    for _ in range(count):
        data = mutated(rng)
        whole = outcome([data])
        cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randint(1, 5)))
        pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        parts = outcome(pieces)
        assert parts[1:] == whole[1:], data
        if not whole[2]:  # what came before an error depends on where the cuts are
            assert parts[0] == whole[0], data


@pytest.mark.parametrize("seed", range(4))
def test_mutated_answers_end_the_same_however_they_are_cut(seed: int) -> None:
    """20,000 broken streams: no crash, no hang, and the cuts of the network do not matter."""
    check_mutations(seed, 5_000)


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_million_mutated_answers() -> None:
    """The same, a million times."""
    check_mutations(99, 1_000_000)
