"""A real headless Chromium, driven over its DevTools protocol: what a reader of a page meets.

Needs a Chromium on PATH, in ``CHROMIUM``, or where ``make chromium`` puts one.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
_FETCHED = Path(__file__).resolve().parents[1] / ".chromium" / "chromium"
_START_S, _ANSWER_S = 60.0, 60.0
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # the tests may run as root, and open only pages of their own
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-extensions",
    "--disable-background-networking",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # nothing beyond this machine
    "--remote-debugging-port=0",
)


def chromium() -> str | None:
    """The program; None where there is none."""
    if named := os.environ.get("CHROMIUM"):
        return named
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    return found or (str(_FETCHED) if _FETCHED.exists() else None)


class Page:
    """A tab. ``complaints`` are errors on its console, exceptions and what could not be loaded."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._next = 0
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._loaded = asyncio.Event()
        self.complaints: list[str] = []
        self.requested: list[str] = []
        self._reader = asyncio.create_task(self._read())

    async def call(self, method: str, **parameters: Any) -> Any:
        """What the browser answers to a command of the protocol.

        Raises:
            RuntimeError: it refused.
        """
        self._next += 1
        answer = self._answers[self._next] = asyncio.get_running_loop().create_future()
        message = {"id": self._next, "method": method, "params": parameters}
        await self._socket.send_str(json.dumps(message))
        return await asyncio.wait_for(answer, _ANSWER_S)

    async def open(self, url: str, *, width: int, height: int = 900, dark: bool = False) -> None:
        """Load a page at a width in CSS pixels, and wait until it is complete."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height,
            deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])
        self._loaded.clear()
        await self.call("Page.navigate", url=url)
        await asyncio.wait_for(self._loaded.wait(), _ANSWER_S)

    async def value(self, expression: str) -> Any:
        """What an expression is worth in the page."""
        found = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(str(found["exceptionDetails"]))
        return found["result"].get("value")

    async def press(self, key: str, code: int) -> None:
        """Press a key."""
        for kind in ("rawKeyDown", "keyUp"):
            await self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code
            )

    async def picture(self) -> bytes:
        """A PNG of the whole page."""
        size = (await self.call("Page.getLayoutMetrics"))["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = await self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(shot["data"])

    async def paper(self) -> bytes:
        """A PDF, as the page's own style prints it."""
        made = await self.call("Page.printToPDF", preferCSSPageSize=True, printBackground=True)
        return base64.b64decode(made["data"])

    async def close(self) -> None:
        """Stop listening."""
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    async def _read(self) -> None:
        async for message in self._socket:
            told = json.loads(message.data)
            if (answer := self._answers.pop(told.get("id", -1), None)) is not None:
                if "error" in told:
                    answer.set_exception(RuntimeError(told["error"]["message"]))
                else:
                    answer.set_result(told["result"])
                continue
            self._hear(told.get("method", ""), told.get("params", {}))

    def _hear(self, method: str, told: dict[str, Any]) -> None:
        if method == "Page.loadEventFired":
            self._loaded.set()
        elif method == "Network.requestWillBeSent":
            self.requested.append(told["request"]["url"])
        elif method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.complaints.append(told["entry"]["text"])
        elif method == "Runtime.consoleAPICalled":
            self.complaints.append(f"console.{told['type']}")
        elif method in ("Runtime.exceptionThrown", "Page.javascriptDialogOpening"):
            self.complaints.append(json.dumps(told)[:500])


@asynccontextmanager
async def browser(program: str) -> AsyncIterator[Page]:
    """A browser with one tab, and nothing of it left afterwards."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        process = await asyncio.create_subprocess_exec(
            program, *_FLAGS, f"--user-data-dir={home}", "about:blank",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "HOME": home, "TMPDIR": home},
        )  # fmt: skip
        try:
            assert process.stderr is not None
            address = await asyncio.wait_for(_address(process.stderr), _START_S)
            drain = asyncio.create_task(process.stderr.read())
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://{address}/json/list") as answer:
                    tabs = await answer.json(content_type=None)
                tab = next(tab for tab in tabs if tab["type"] == "page")
                url = tab["webSocketDebuggerUrl"]
                async with session.ws_connect(url, max_msg_size=0) as socket:
                    page = Page(socket)
                    yield page
                    await page.close()
            drain.cancel()
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def _address(stderr: asyncio.StreamReader) -> str:
    """Where it listens, as it says on its standard error."""
    said = []
    async for line in stderr:
        text = line.decode("utf-8", "replace")
        said.append(text)
        if "DevTools listening on ws://" in text:
            return text.split("ws://", 1)[1].split("/", 1)[0]
    raise RuntimeError(f"the browser ended at once: {''.join(said)[-2000:]}")
