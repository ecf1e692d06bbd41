"""A stand-in for an engine's server: a real process that behaves as a test wants.

Standard library only, so that it starts in a tenth of a second. ``GET /quit`` ends it with code 0,
``/sicken`` makes /health answer 503, ``/busy`` and ``/idle`` change the running requests.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

STATE: dict[str, Any] = {"health": 200, "running": 0}


class Handler(BaseHTTPRequestHandler):
    """Answers the few paths that fairshare asks for."""

    def do_GET(self) -> None:
        """Answer one of the paths."""
        options = STATE["options"]
        commands = {"/sicken": ("health", 503), "/busy": ("running", 2), "/idle": ("running", 0)}
        if self.path in commands:
            key, value = commands[self.path]
            STATE[key] = value
        if self.path == "/quit":
            os._exit(0)
        status, body = 200, ""
        if self.path == "/health":
            status = 404 if options.do == "no-health" else STATE["health"]
        elif self.path == "/v1/models":
            wanted = f"Bearer {os.environ.get('STUB_KEY', '')}"
            names = ["another"] if options.do == "other-model" else [options.served_model_name]
            body = json.dumps({"data": [{"id": name} for name in names]})
            if options.do == "html":
                body = "<html>hello</html>"
            if "STUB_KEY" in os.environ and self.headers["Authorization"] != wanted:
                status, body = 401, '{"error": "unauthorized"}'
        elif self.path == "/metrics":
            body = f"vllm:num_requests_running {STATE['running']}\nvllm:num_requests_waiting 0\n"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the base's name)
        """Stay silent."""


def _garbage(port: int) -> None:
    listener = socket.create_server(("127.0.0.1", port))
    while True:
        connection, _ = listener.accept()
        connection.recv(1024)
        connection.sendall(b"SSH-2.0-OpenSSH\r\n\r\n")
        connection.close()


def main() -> None:
    """Behave as ``--do`` says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--served-model-name", default="m")
    parser.add_argument("--do", default="serve")
    parser.add_argument("--segment", type=Path, help="shared memory to hold open")
    options, _ = parser.parse_known_args()
    STATE["options"] = options
    if options.segment is not None:
        STATE["segment"] = options.segment.open("wb")
    if options.do == "die":
        print("INFO loading", flush=True)
        sys.stderr.write("Traceback (most recent call last):\n  x\nOSError: [Errno 98] taken\n")
        sys.exit(3)
    if options.do == "hang":
        time.sleep(600)
    if options.do == "garbage":
        _garbage(options.port)
    if options.do == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        code = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
        subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    Path(os.environ["TMPDIR"], "socket").touch()
    ThreadingHTTPServer(("127.0.0.1", options.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
