"""Holds a process's place on the simulated GPU for the libcuda of a rehearsal, and knows its fate.

``python helper.py GPU_FOLDER``, started by the process whose place it is. It prints an error code,
and where that is 0 the SMs, the memory in all and what may be had, and the UUID's digits; then an
error code for each line ``WORD NUMBER`` that it reads. It goes when its process does.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys
from pathlib import Path

FOLDER = Path(sys.argv[1])
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from fairshare.virtual import share as shares  # noqa: E402 - found by the line above
from fairshare.virtual.mps_protocol import connect, exchange  # noqa: E402
from fairshare.virtual.processes import start_ticks  # noqa: E402
from fairshare.virtual.state import STATE_ENV  # noqa: E402

CONTEXT_BYTES = 512 * 1024**2
NO_DEVICE, ILLEGAL_ADDRESS, NOT_READY, CLIENT_TERMINATED = 100, 700, 807, 810
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


class Place:
    """A process's place: its share, its MPS connection, what it told the driver of its memory."""

    def __init__(self, share: shares.ProcessShare, pid: int) -> None:
        self.share, self.pid = share, pid
        self.note = FOLDER / "servers" / f"{pid}.json"
        self.failed = 0

    def told(self, used_bytes: int) -> None:
        """Tell the driver of the memory in use."""
        ours = {"pid": self.pid, "start_ticks": start_ticks(self.pid), "model": "cuda"}
        used = {"used_bytes": CONTEXT_BYTES + used_bytes}
        self.note.write_text(json.dumps({**ours, **used, **self.share.report()}))

    def fault(self) -> None:
        """Write to nowhere: under MPS it is told to the daemon, and so to all."""
        self.failed = ILLEGAL_ADDRESS
        if self.share.connection is not None:
            told = self.share.connection.getsockopt(
                socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
            )
            os.kill(_CREDENTIALS.unpack(told)[0], signal.SIGUSR1)

    def state(self) -> int:
        """The error that a synchronisation would tell."""
        connection = self.share.connection
        if self.failed or connection is None:
            return self.failed
        connection.setblocking(False)
        try:
            if not connection.recv(1):
                self.failed = CLIENT_TERMINATED
        except BlockingIOError:
            if self._asked(f"get_server_status {self._asked('get_server_list')}") == "FAULT":
                self.failed = ILLEGAL_ADDRESS
        return self.failed

    @staticmethod
    def _asked(command: str) -> str:
        stream = connect(Path(os.environ["CUDA_MPS_PIPE_DIRECTORY"]))
        reply = None if stream is None else exchange(stream, {"command": command})
        return str(reply["output"]).strip() if reply else ""


def main() -> None:
    """See the module."""
    pid = os.getppid()
    os.environ[STATE_ENV] = str(FOLDER)
    os.getpid = lambda: pid  # it is our parent that joins
    try:
        share = shares.find_share(os.environ, "h200")
    except shares.NoDeviceError as error:
        print(NOT_READY if "not ready" in str(error) else NO_DEVICE, flush=True)
        return
    place = Place(share, pid)
    sms = int(share.gpu.sm_count * share.partition.sm_share * share.sm_share) // 2 * 2
    cap = (share.memory_cap or share.memory_total) - CONTEXT_BYTES
    digits = share.device_uuid.partition("-")[2].replace("-", "")
    print(0, sms, share.memory_total, cap, digits, flush=True)
    for line in sys.stdin:
        word, number = line.split()
        if word in ("context", "used"):
            place.told(int(number))
        elif word == "fault":
            place.fault()
        print(place.state() if word == "sync" else 0, flush=True)
    place.note.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
