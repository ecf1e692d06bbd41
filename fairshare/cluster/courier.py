"""What a node's process sends home, by a thread of its own: the measurement never waits for it.

While a cell is measured only events and what servers log are sent. A cell's own files are sent when
it is over, and then removed here.
"""

from __future__ import annotations

import contextlib
import queue
import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from fairshare.cluster.messages import PIECE_BYTES, CellSent, Happened, Message, Piece, packed
from fairshare.records import CellStatus
from fairshare.results import layout

_LOGS_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class _Cell:
    """A cell whose folder is to be sent."""

    id: str
    complete: bool


class Courier:
    """Sends messages, the files of cells and the growth of server logs, in order."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._queue: queue.SimpleQueue[Message | _Cell | None] = queue.SimpleQueue()
        self._folder: Path | None = None
        self._sent: dict[Path, int] = {}
        self._cut_off = False
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)
        self._thread.start()

    def watch(self, folder: Path) -> None:
        """Send what servers log below the result folder, and cells of it when they are over."""
        self._folder = folder

    def send(self, message: Message) -> None:
        """Send one message, after all before it."""
        self._queue.put(message)

    def hear(self, event: Mapping[str, Any]) -> None:
        """Pass on an event; before the end of a cell, its files."""
        if event["event"] == "cell.finished":
            self._queue.put(_Cell(event["cell"], event["status"] != CellStatus.INTERRUPTED))
        fields = {name: value for name, value in event.items() if name not in ("t", "event")}
        self._queue.put(Happened(event["event"], fields))

    def close(self) -> None:
        """Send what is left, and return when it is sent or cannot be."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                item = self._queue.get(timeout=_LOGS_EVERY_S)
            except queue.Empty:
                self._send_logs()
                continue
            if item is None:
                self._send_logs()
                return
            if isinstance(item, _Cell):
                self._send_logs()
                self._send_cell(item)
            else:
                self._put(item)

    def _put(self, message: Message) -> None:
        """Hand it to the agent. Once that is gone nobody listens; cleaning up goes on."""
        if not self._cut_off:
            try:
                self._connection.send_bytes(packed(message))
            except OSError:
                self._cut_off = True

    def _send_cell(self, cell: _Cell) -> None:
        assert self._folder is not None  # noqa: S101 - cells come from the folder's own sweep
        name = layout.cell_folder(cell.id)
        folder = self._folder / layout.CELLS / (name if cell.complete else name + layout.PARTIAL)
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            self._send_file(path, str(Path(layout.CELLS) / name / path.relative_to(folder)))
            del self._sent[path]
        self._put(CellSent(cell.id, name, cell.complete))
        shutil.rmtree(folder, ignore_errors=True)

    def _send_logs(self) -> None:
        if self._folder is None:
            return
        servers = self._folder / layout.SERVERS
        for path in sorted(path for path in servers.rglob("*") if path.is_file()):
            with contextlib.suppress(FileNotFoundError):
                self._send_file(path, str(path.relative_to(self._folder)))

    def _send_file(self, path: Path, name: str) -> None:
        """Send what a file has grown by since it was sent last; one of no bytes too, once."""
        with path.open("rb") as file:
            begun = path in self._sent
            file.seek(self._sent.get(path, 0))
            while (data := file.read(PIECE_BYTES)) or not begun:
                self._put(Piece(name, data, first=not begun))
                begun = True
            self._sent[path] = file.tell()
