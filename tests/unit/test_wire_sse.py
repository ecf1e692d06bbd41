"""Event streams come apart the same way however the network cuts them."""

from __future__ import annotations

import random

import pytest

from fairshare.wire.answer import WireError
from fairshare.wire.sse import SseSplitter

STREAM = (
    ": keep-alive\n\n"
    'data: {"text":"grüße 🙂"}\n\n'
    "event: token\nid: 7\ndata: one\ndata:two\ndata\n\n"
    "data: crlf\r\n\r\n"
    "\n\n"
    "data:no space\n\n"
    "data:  two spaces\n\n"
    "retry: 10\n\n"
    "data: [DONE]\n\n"
).encode()
EVENTS = [
    '{"text":"grüße 🙂"}'.encode(),
    b"one\ntwo\n",
    b"crlf",
    b"no space",
    b" two spaces",
    b"[DONE]",
]


def split(*pieces: bytes, max_event_bytes: int = 1 << 20) -> list[bytes]:
    """All events of a stream that arrives in ``pieces``."""
    splitter = SseSplitter(max_event_bytes)
    found = [event for piece in pieces for event in splitter.feed(piece)]
    return found + splitter.close()


def reference(stream: bytes) -> list[bytes]:
    """The standard's algorithm, line by line, written to be obviously right, not fast."""
    text = stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    *lines, _cut = text.split(b"\n")
    found: list[bytes] = []
    data: list[bytes] = []
    for line in [*lines, b""]:
        if not line:
            if data:
                found.append(b"\n".join(data))
            data = []
        elif line == b"data":
            data.append(b"")
        elif line.startswith(b"data:"):
            value = line[5:]
            data.append(value[1:] if value.startswith(b" ") else value)
    return found


def chopped(stream: bytes, rng: random.Random) -> list[bytes]:
    """``stream`` in pieces of random length."""
    pieces = []
    while stream:
        size = rng.choice((1, 2, 3, 10, 100))
        pieces.append(stream[:size])
        stream = stream[size:]
    return pieces


def test_whole_stream_gives_the_data_of_each_event() -> None:
    """Only data counts: comments, other fields and empty events give nothing."""
    assert split(STREAM) == EVENTS


def test_every_split_point_gives_the_same_events() -> None:
    """A cut anywhere, within a character or a CRLF too, changes nothing."""
    for cut in range(len(STREAM) + 1):
        assert split(STREAM[:cut], STREAM[cut:]) == EVENTS, cut


def test_every_pair_of_split_points_in_an_event_gives_the_same_events() -> None:
    """Two cuts in one event change nothing either."""
    stream = b"data: a\r\n\r\ndata: b\n\n"
    for first in range(len(stream) + 1):
        for second in range(first, len(stream) + 1):
            pieces = stream[:first], stream[first:second], stream[second:]
            assert split(*pieces) == [b"a", b"b"], (first, second)


def test_single_bytes_give_the_same_events() -> None:
    """A stream that trickles byte by byte is understood."""
    assert split(*(bytes([byte]) for byte in STREAM)) == EVENTS


def check_mutations(seed: int, count: int) -> None:
    """Damaged streams, cut at random, give what the standard's algorithm gives."""
    rng = random.Random(seed)
    alphabet = b'\n\r :dat{}"x\x00\xff'
    for _ in range(count):
        stream = bytearray(STREAM)
        for _ in range(rng.randint(1, 12)):
            place = rng.randrange(len(stream))
            match rng.randrange(3):
                case 0:
                    stream[place] = rng.choice(alphabet)
                case 1:
                    del stream[place]
                case _:
                    stream.insert(place, rng.choice(alphabet))
        damaged = bytes(stream)
        assert split(*chopped(damaged, rng)) == reference(damaged), damaged


@pytest.mark.parametrize("seed", range(8))
def test_mutated_streams_agree_with_the_reference(seed: int) -> None:
    """20,000 damaged streams, cut at random, give what the standard's algorithm gives."""
    check_mutations(seed, 2500)


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_a_million_mutated_streams_agree_with_the_reference() -> None:
    """The same, a million times."""
    check_mutations(99, 1_000_000)


def test_byte_order_mark_is_skipped() -> None:
    """A stream may begin with a byte-order mark."""
    assert split(b"\xef\xbb\xbfdata: x\n\n") == [b"x"]


def test_last_event_without_its_blank_line_counts() -> None:
    """A server that closes right after its last line has said that line."""
    assert split(b"data: a\n\ndata: [DONE]\n") == [b"a", b"[DONE]"]


def test_event_cut_within_a_line_is_dropped() -> None:
    """Half a line at the end of a broken stream is not taken for a whole one."""
    assert split(b"data: a\n\ndata: [DO") == [b"a"]


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_line_without_end_is_an_error_and_not_a_full_memory(size: int) -> None:
    """An event longer than allowed is refused as soon as it is seen to be."""
    splitter = SseSplitter(max_event_bytes=100)
    splitter.feed(b"data: fine\n\n")
    with pytest.raises(WireError, match="longer than 100 bytes"):
        for _ in range(1 + 200 // size):
            splitter.feed(b"x" * size)


def test_events_before_a_line_without_end_are_given() -> None:
    """What arrived well in the same read as a monster is not lost."""
    splitter = SseSplitter(max_event_bytes=100)
    assert splitter.feed(b"data: a\n\ndata: b\n\n" + b"x" * 200) == [b"a", b"b"]
    with pytest.raises(WireError):
        splitter.close()


@pytest.mark.parametrize("cut", range(1, 104))
def test_limit_does_not_depend_on_the_cuts(cut: int) -> None:
    """An event of exactly the limit passes and one byte more does not, wherever it is cut."""
    exact = b"data: " + b"x" * 94 + b"\n\n"
    over = b"data: " + b"x" * 95 + b"\n\n"
    assert split(exact[:cut], exact[cut:], max_event_bytes=100) == [b"x" * 94]
    with pytest.raises(WireError):
        split(over[:cut], over[cut:], max_event_bytes=100)
