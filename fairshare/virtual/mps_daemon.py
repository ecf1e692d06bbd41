"""The stand-in MPS control daemon: one process, one select loop, limits and registered clients.

Its "server" is a child that does nothing but exist, so that it has a PID like the real one. SIGUSR1
is a fatal fault of a client: the server is in state FAULT until all clients have gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from fairshare.virtual.mps_commands import ServerState, Settings, answer
from fairshare.virtual.mps_protocol import Limits
from fairshare.virtual.processes import close_client, note_mps_server
from fairshare.virtual.state import STATE_ENV

_PR_SET_PDEATHSIG = 1
_PID_FILE = "nvidia-cuda-mps-control.pid"


@dataclass(slots=True)
class _Connection:
    """One peer: a command (answered once) or a client (stays)."""

    stream: socket.socket
    data: bytes = b""
    client_pid: int | None = None
    partition: str | None = None


@dataclass(slots=True)
class _Quit:
    """A quit that waits for the clients to leave."""

    asker: _Connection
    deadline_s: float | None


@dataclass(slots=True)
class Daemon:
    """The control daemon of one pipe directory, whose lock the caller holds.

    ``version`` is the control program's, None for those that do not tell; in the background it
    writes its log into a file.
    """

    pipe_dir: Path
    version: int | None
    background: bool
    settings: Settings = field(default_factory=Settings.from_environment)
    _listener: socket.socket | None = None
    _privileged: socket.socket | None = None
    _fault: bool = False
    _connections: list[_Connection] = field(default_factory=list)
    _server_pid: int | None = None
    _server_note: Path | None = None
    _quitting: _Quit | None = None

    def listen(self) -> None:
        """Create the files of the pipe directory and listen on ``control``."""
        control = self.pipe_dir / "control"
        self._listener = _bound(control, 0o666)
        self._privileged = _bound(self.pipe_dir / "control_privileged", 0o755)
        self._listener.listen(64)
        (self.pipe_dir / "log").unlink(missing_ok=True)
        os.mkfifo(self.pipe_dir / "log")
        if self.background:
            (self.pipe_dir / _PID_FILE).write_text(str(os.getpid()))
        signal.signal(signal.SIGUSR1, self._fail)
        self._log(f"Starting control daemon using socket {control}")
        self._log(
            "To connect CUDA applications to this daemon, set env "
            f"CUDA_MPS_PIPE_DIRECTORY={self.pipe_dir}"
        )
        if self.version is not None:
            self._log(f"CUDA MPS Control binary version: {self.version}")

    def run(self) -> int:
        """Answer until told to quit; the exit status. SIGTERM ends it at once, files and all."""
        if self._listener is None:
            raise RuntimeError("not listening")
        while True:
            wait_s = None
            if self._quitting is not None and self._quitting.deadline_s is not None:
                wait_s = max(0.0, self._quitting.deadline_s - time.monotonic())
            peers = [self._listener, *(c.stream for c in self._connections)]
            ready, _, _ = select.select(peers, [], [], wait_s)
            for stream in ready:
                if stream is self._listener:
                    self._connections.append(_Connection(stream.accept()[0]))
                else:
                    self._read(next(c for c in self._connections if c.stream is stream))
            if self._quitting is not None and self._may_quit(self._quitting):
                return self._leave(self._quitting)

    def _may_quit(self, quitting: _Quit) -> bool:
        late = quitting.deadline_s is not None and time.monotonic() >= quitting.deadline_s
        return late or not self._client_pids()

    def _leave(self, quitting: _Quit) -> int:
        self._stop_server()
        for name in (_PID_FILE, "log"):
            (self.pipe_dir / name).unlink(missing_ok=True)
        self._log("Exit with status 0")
        self._reply(quitting.asker, {"output": "", "status": 0})
        return 0

    def _read(self, peer: _Connection) -> None:
        try:
            received = peer.stream.recv(65536)
        except OSError:
            received = b""
        if not received:
            self._drop(peer)
            return
        peer.data += received
        if b"\n" not in peer.data:
            return
        line, _, peer.data = peer.data.partition(b"\n")
        try:
            request = json.loads(line)
        except ValueError:
            self._drop(peer)
            return
        if "client" in request:
            self._register(peer, request)
        else:
            self._command(peer, str(request.get("command", "")))

    def _register(self, peer: _Connection, request: dict[str, Any]) -> None:
        if self._quitting is not None:
            self._drop(peer)  # no new clients while the old ones are waited for
            return
        limits = self.settings.limits()
        limits = limits.tightened(Limits(request.get("percentage"), request.get("memory")))
        partition = request.get("partition")
        if self._fault:
            self._reply(
                peer, {"refused": "MPS server is not ready to accept new MPS client requests"}
            )
            return
        if self.settings.partitions is not None:
            percentage = self.settings.partitions.percentage(partition or "")
            if percentage is None:
                self._reply(peer, {"refused": f"no static SM partition {partition}"})
                return
            limits = Limits(percentage, limits.memory_bytes)
        peer.client_pid, peer.partition = int(request["client"]), partition
        self._start_server()
        self._log(f"NEW CLIENT {peer.client_pid} from user {os.geteuid()}: Server already exists")
        self._reply(peer, {"percentage": limits.thread_percentage, "memory": limits.memory_bytes})

    def _command(self, peer: _Connection, command: str) -> None:
        for line in ("Accepting connection...", "NEW UI", f"Cmd:{command}"):
            self._log(line)
        words = command.split()
        if words[:1] == ["quit"]:
            deadline = None
            if words[1:2] == ["-t"] and words[2:3] and words[2].isdigit():
                self._log(f"quit command issued with timeout of {words[2]}")
                deadline = time.monotonic() + int(words[2])
            self._quitting = _Quit(peer, deadline)
            return
        output = answer(words, self.settings, self._server())
        self._do(words)
        for line in output.splitlines():
            self._log(line)
        self._reply(peer, {"output": output, "status": 0})
        self._log("UI closed")

    def _do(self, words: list[str]) -> None:
        """What a command changes beyond the settings."""
        if words[:2] == ["start_server", "-uid"]:
            self._start_server()
        if words[0] == "terminate_client" and words[1:2] == [str(self._server_pid)]:
            for peer in [c for c in self._connections if words[2:] == [str(c.client_pid)]]:
                self._drop(peer)

    def _fail(self, _number: int, _frame: object) -> None:
        """A fatal fault of some client: it is reported to all, and the server refuses new ones."""
        self._fault = bool(self._client_pids())

    def _server(self) -> ServerState | None:
        if self._server_pid is None:
            return None
        clients = {c.client_pid: c.partition for c in self._connections if c.client_pid is not None}
        return ServerState(self._server_pid, clients, self._fault)

    def _client_pids(self) -> list[int]:
        return [c.client_pid for c in self._connections if c.client_pid is not None]

    def _reply(self, peer: _Connection, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            peer.stream.sendall(json.dumps(message).encode() + b"\n")

    def _drop(self, peer: _Connection) -> None:
        peer.stream.close()
        self._connections.remove(peer)
        if self._quitting is not None and self._quitting.asker is peer:
            self._quitting.asker = _Connection(socket.socket())
        self._fault = self._fault and bool(self._client_pids())

    def _start_server(self) -> None:
        if self._server_pid is not None:
            return
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            # As the real one it ends with its daemon, however that ends.
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            os.closerange(3, 256)
            while os.getppid() == parent:
                signal.pause()
            os._exit(0)
        self._server_pid = pid
        if gpu := os.environ.get(STATE_ENV):
            with contextlib.suppress(OSError):  # the GPU's folder was thrown away
                self._server_note = note_mps_server(Path(gpu), pid)
        self._log(f"Starting new server {pid} for user {os.geteuid()}")

    def _stop_server(self) -> None:
        if self._server_pid is not None:
            os.kill(self._server_pid, signal.SIGKILL)
            os.waitpid(self._server_pid, 0)
            self._log(f"Server {self._server_pid} exited with status 0")
            self._server_pid = None
            if self._server_note is not None:
                close_client(self._server_note)

    def _log(self, text: str) -> None:
        now = datetime.now()
        stamp = f"{now:%Y-%m-%d %H:%M:%S}.{now.microsecond // 1000:03}"
        line = f"[{stamp} Control {os.getpid():5d}] {text}"
        with contextlib.suppress(OSError):
            if not self.background:
                print(line, flush=True)
                return
            directory = Path(os.environ.get("CUDA_MPS_LOG_DIRECTORY") or self.pipe_dir)
            with (directory / "control.log").open("a") as log:
                log.write(line + "\n")


def _bound(path: Path, mode: int) -> socket.socket:
    path.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    bound.bind(os.fspath(path))
    path.chmod(mode)
    return bound
