"""The stand-in MPS control daemon: one process, one select loop, limits and registered clients.

Its "server" is a child that does nothing but exist, so that it has a PID like the real one.
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

from fairshare.virtual.mps_commands import Settings, answer
from fairshare.virtual.mps_protocol import Limits

_PR_SET_PDEATHSIG = 1


@dataclass(slots=True)
class _Connection:
    """One peer: a command (answered once) or a client (stays)."""

    stream: socket.socket
    data: bytes = b""
    client_pid: int | None = None


@dataclass(slots=True)
class _Quit:
    """A quit that waits for the clients to leave."""

    asker: _Connection
    deadline_s: float | None


@dataclass(slots=True)
class Daemon:
    """The control daemon of one pipe directory, whose lock the caller holds."""

    pipe_dir: Path
    settings: Settings = field(default_factory=Settings.from_environment)
    _listener: socket.socket | None = None
    _connections: list[_Connection] = field(default_factory=list)
    _server_pid: int | None = None
    _quitting: _Quit | None = None

    def listen(self) -> None:
        """Create the files of the pipe directory and listen on ``control``."""
        control = self.pipe_dir / "control"
        control.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        listener.bind(os.fspath(control))
        listener.listen(64)
        self._listener = listener
        (self.pipe_dir / "nvidia-cuda-mps-control.pid").write_text(str(os.getpid()))
        self._log(f"Starting control daemon using socket {control}")
        self._log(
            "To connect CUDA applications to this daemon, set env "
            f"CUDA_MPS_PIPE_DIRECTORY={self.pipe_dir}"
        )
        self._log("CUDA MPS Control binary version: 13000")

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
        (self.pipe_dir / "nvidia-cuda-mps-control.pid").unlink(missing_ok=True)
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
        peer.client_pid = int(request["client"])
        if self._server_pid is None:
            self._start_server()
        wanted = Limits(request.get("percentage"), request.get("memory"))
        limits = self.settings.limits().tightened(wanted)
        self._log(f"NEW CLIENT {peer.client_pid} from user {os.geteuid()}: Server already exists")
        self._reply(peer, {"percentage": limits.thread_percentage, "memory": limits.memory_bytes})

    def _command(self, peer: _Connection, command: str) -> None:
        self._log(f"Cmd:{command}")
        words = command.split()
        if words[:1] == ["quit"]:
            deadline = None
            if words[1:2] == ["-t"] and words[2:3] and words[2].isdigit():
                self._log(f"quit command issued with timeout of {words[2]}")
                deadline = time.monotonic() + int(words[2])
            self._quitting = _Quit(peer, deadline)
            return
        output = answer(words, self.settings, self._server_pid, self._client_pids())
        self._reply(peer, {"output": output, "status": 0})

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

    def _start_server(self) -> None:
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
        self._log(f"Starting new server {pid} for user {os.geteuid()}")

    def _stop_server(self) -> None:
        if self._server_pid is not None:
            os.kill(self._server_pid, signal.SIGKILL)
            os.waitpid(self._server_pid, 0)
            self._log(f"Server {self._server_pid} exited with status 0")
            self._server_pid = None

    def _log(self, text: str) -> None:
        directory = Path(os.environ.get("CUDA_MPS_LOG_DIRECTORY") or self.pipe_dir)
        stamp = datetime.now().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        with contextlib.suppress(OSError), (directory / "control.log").open("a") as log:
            log.write(f"[{stamp} Control {os.getpid()}] {text}\n")
