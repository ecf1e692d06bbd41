"""What it costs to watch a cell: CPU of the event loop and of the drawing thread.

A minute of a cell is gone through as fast as it goes: each answer is counted, and every two seconds
an event is put together, written and drawn. What that takes is said as a share of one core over
that minute, and beside it what making lines of ``requests.jsonl`` of the same answers takes, which
every run pays.

Run: python -m benchmarks.live_view
"""

from __future__ import annotations

import io
import tempfile
import time
from pathlib import Path

from rich.console import Console

from fairshare.events import EventLog
from fairshare.load.pulse import PULSE_S
from fairshare.records import Phase, RequestRecord
from fairshare.runner import progress
from fairshare.runner.progress import CellProgress
from fairshare.spec.scenario import Tenant
from fairshare.ui.live import TerminalView

MINUTE_S = 60.0
TENANTS = 4


def _tenant(number: int) -> Tenant:
    tokens = {"kind": "fixed", "tokens": 64}
    prompts = {"kind": "synthetic", "tokens": tokens}
    return Tenant.model_validate({"name": f"tenant-{number}", "prompts": prompts, "output": tokens})


def _record(number: int) -> RequestRecord:
    first = 50_000_000 + number % 1000 * 1000
    chunks = [first + 10_000_000 * i for i in range(64)]
    return RequestRecord(
        id=str(number), tenant=f"tenant-{number % TENANTS}", server="s", phase=Phase.MEASURE,
        intended_ns=0, sent_ns=100, first_token_ns=first, chunk_ns=chunks, chunk_tokens=[1] * 64,
        end_ns=chunks[-1], output_tokens=64, finish_reason="length", status=200,
    )  # fmt: skip


def _minute(rate: int, folder: Path) -> tuple[float, float, float, float]:
    """CPU seconds of counting and telling, of drawing, of writing records; the longest pulse."""
    tenants = [_tenant(number) for number in range(TENANTS)]
    records = [_record(number) for number in range(1000)]
    view = TerminalView(Console(file=io.StringIO(), force_terminal=True, width=120))
    told: list[dict[str, object]] = []
    now = [0.0]
    telling = longest = writing = 0.0
    with EventLog(folder / f"{rate}.jsonl") as log:
        log.listen(lambda event: told.append(dict(event)))
        log.emit("sweep.started", cells=3)
        log.emit("cell.started", cell="a")
        monotonic, progress.time.monotonic = progress.time.monotonic, lambda: now[0]
        try:
            cell = CellProgress("a", tenants, log, None)
            for pulse in range(round(MINUTE_S / PULSE_S)):
                batch = [records[i % 1000] for i in range(round(rate * PULSE_S))]
                begun = time.process_time()
                for record in batch:
                    cell.add(record)
                before = time.process_time()
                now[0] = (pulse + 1) * PULSE_S
                cell.pulse({tenant.name: 8 for tenant in tenants})
                telling += time.process_time() - begun
                longest = max(longest, time.process_time() - before)
                begun = time.process_time()
                b"\n".join(record.to_json() for record in batch)
                writing += time.process_time() - begun
        finally:
            progress.time.monotonic = monotonic
    begun = time.process_time()
    for event in told:
        view.take(event)
    drawing = time.process_time() - begun
    view.close()
    return telling, drawing, writing, longest


def main() -> None:
    """Print a line per rate."""
    print(
        "answers/s  counting and telling  drawing  together  lines of requests.jsonl  longest pulse"
    )
    with tempfile.TemporaryDirectory() as folder:
        for rate in (50, 500, 5000):
            telling, drawing, writing, longest = _minute(rate, Path(folder))
            shares = [f"{100 * each / MINUTE_S:.3f} %" for each in (telling, drawing)]
            both = f"{100 * (telling + drawing) / MINUTE_S:.3f} %"
            print(
                f"{rate:9d}  {shares[0]:>20}  {shares[1]:>7}  {both:>8}  "
                f"{100 * writing / MINUTE_S:>21.3f} %  {1000 * longest:10.2f} ms"
            )


if __name__ == "__main__":
    main()
