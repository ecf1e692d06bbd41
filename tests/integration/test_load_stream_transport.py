"""The transport with a reader of our own: its connections, and the edges of an answer."""

from __future__ import annotations

import asyncio
import gc
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from load_bench import closed, run

from fairshare.load.stream_transport import StreamTransport
from fairshare.load.transport import TransportError
from fairshare.records import ErrorKind
from fairshare.spec.scenario import Timing
from fairshare.testing.fake_server import FakeServer
from fairshare.wire.http1 import Http1Response

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
WHOLE = HEAD + b"3\r\nend\r\n0\r\n\r\n"
Answering = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Listener:
    """Collects an answer; complete when it says ``end``."""

    def __init__(self) -> None:
        self.body = b""
        self.ended = False

    def on_headers(self, now_ns: int, status: int, content_type: str, retry_after: str) -> None:
        """The head is here."""

    def on_data(self, now_ns: int, data: bytes) -> bool:
        """Take a piece."""
        self.body += data
        return self.body.endswith(b"end")

    def on_end(self, now_ns: int) -> None:
        """HTTP's end."""
        self.ended = True


@asynccontextmanager
async def server(answer: Answering) -> AsyncIterator[tuple[StreamTransport, list[int]]]:
    """A transport to a server that answers each request so, and the ports of its clients."""
    clients: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clients.append(writer.get_extra_info("peername")[1])
        try:
            while await reader.readuntil(b"\r\n\r\nbody"):
                await answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    transport = StreamTransport(f"http://127.0.0.1:{port}")
    try:
        yield transport, clients
    finally:
        await transport.close()
        listening.close()


async def post(transport: StreamTransport) -> Listener:
    """One request; the listener that heard its answer."""
    listener = Listener()
    await transport.post("/x", {"A": "b"}, b"body", listener)
    return listener


def saying(answer: bytes) -> Answering:
    """Answer with these bytes."""

    async def speak(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    return speak


async def test_prepared_connections_carry_the_requests() -> None:
    """What was opened ahead is used: no request waits for a connection of its own."""
    async with server(saying(WHOLE)) as (transport, clients):
        await transport.prepare(3)
        answers = await asyncio.gather(*(post(transport) for _ in range(3)))
        assert [each.body for each in answers] == [b"end"] * 3
        assert len(clients) == 3


async def test_preparing_for_a_dead_server_is_left_to_its_requests() -> None:
    """Nothing is raised before there is a request to blame it on."""
    transport = StreamTransport("http://127.0.0.1:1")
    await transport.prepare(2)
    with pytest.raises(TransportError) as caught:
        await post(transport)
    assert caught.value.kind is ErrorKind.CONNECT
    assert "127.0.0.1:1" in caught.value.text


async def test_a_missing_end_of_the_body_delays_nobody() -> None:
    """An answer that is complete returns at once; its connection is not used again."""
    async with server(saying(HEAD + b"3\r\nend\r\n")) as (transport, clients):
        async with asyncio.timeout(5):
            for _ in range(3):
                assert not (await post(transport)).ended
        assert len(set(clients)) == 3


async def test_bytes_that_nobody_asked_for_cost_the_connection() -> None:
    """What follows an answer is never taken for the next one."""
    async with server(saying(WHOLE + b"HTTP/1.1 200 OK\r\n")) as (transport, clients):
        assert [(await post(transport)).body for _ in range(2)] == [b"end", b"end"]
        assert len(set(clients)) == 2


async def test_a_server_that_closes_after_an_answer_is_asked_anew() -> None:
    """``Connection: close`` is kept to."""
    answer = WHOLE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
    async with server(saying(answer)) as (transport, clients):
        assert [(await post(transport)).body for _ in range(2)] == [b"end", b"end"]
        assert len(set(clients)) == 2


async def test_a_connection_that_ended_unseen_carries_no_request() -> None:
    """A server that closes after its answer, just before the next request, fails nobody."""
    listening = socket.create_server(("127.0.0.1", 0))
    answered = threading.Event()

    def serve() -> None:
        for _ in range(2):
            connection, _ = listening.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(WHOLE)
                answered.wait()

    serving = threading.Thread(target=serve, daemon=True)
    serving.start()
    transport = StreamTransport(f"http://127.0.0.1:{listening.getsockname()[1]}")
    try:
        assert (await post(transport)).body == b"end"
        answered.set()
        time.sleep(0.05)  # noqa: ASYNC251  (the loop is not to see the end that comes meanwhile)
        assert (await post(transport)).body == b"end"
    finally:
        await transport.close()
        serving.join(5)
        listening.close()


async def test_a_reset_is_a_disconnect() -> None:
    """A connection that breaks inside an answer is told as such."""

    async def reset(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"3\r\nhal")
        await writer.drain()
        writer.transport.abort()

    async with server(reset) as (transport, _):
        with pytest.raises(TransportError) as caught:
            await post(transport)
    assert caught.value.kind is ErrorKind.DISCONNECT


async def test_a_long_request_is_sent_whole() -> None:
    """A socket that takes only the beginning gets the rest when it can."""
    body = bytes(range(256)) * (1 << 15)  # 8 MiB
    came: list[bool] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0)  # the sender has found by now that not all of it fits
        came.append(await reader.readexactly(int(head.rpartition(b":")[2])) == body)
        writer.write(WHOLE)

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    transport = StreamTransport(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}")
    try:
        listener = Listener()
        await transport.post("/x", {"A": "b"}, body, listener)
        assert listener.body == b"end"
        assert came == [True]
    finally:
        await transport.close()
        listening.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A key, and its certificate for ``localhost``, signed by itself."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *files], check=True, capture_output=True)
    return key, certificate


@pytest.mark.parametrize("trusted", [True, False])
async def test_tls_carries_answers_of_whom_it_trusts(
    certificate: tuple[Path, Path], trusted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over https the same answers come, unless the other end is not whom it says."""
    key, trust = certificate
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(trust))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trust, key)
    long = b"x" * 100_000 + b"end"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            await reader.readuntil(b"\r\n\r\nbody")
            writer.write(HEAD + b"%x\r\n%b\r\n0\r\n\r\n" % (len(long), long))

    listening = await asyncio.start_server(serve, "localhost", 0, ssl=context)
    transport = StreamTransport(f"https://localhost:{listening.sockets[0].getsockname()[1]}")
    try:
        if trusted:
            assert [(await post(transport)).body == long for _ in range(2)] == [True, True]
        else:
            with pytest.raises(TransportError, match="certificate") as caught:
                await post(transport)
            assert caught.value.kind is ErrorKind.CONNECT
    finally:
        await transport.close()
        listening.close()


async def test_a_line_break_in_a_header_is_refused() -> None:
    """A key with a line break must not become a header of its own."""
    async with server(saying(WHOLE)) as (transport, _):
        with pytest.raises(TransportError, match="line break"):
            await transport.post("/x", {"A": "b\r\nX: y"}, b"body", Listener())


async def test_requests_leave_no_garbage_to_collect() -> None:
    """Collection is paused in a run, so an answer must not need it to be freed."""
    left: list[int] = []

    def count(_record: object) -> None:
        left.append(sum(type(each) is Http1Response for each in gc.get_objects()))

    async with FakeServer() as fake:
        timing = Timing(warmup_s=0, window_s=20, drain_s=5, requests=40)
        await run([closed(fake, 2)], timing, on_record=count)
    assert max(left) <= 4
