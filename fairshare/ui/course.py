"""How far a sweep has come, as its events tell it: of this process, or of another's event log."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fairshare.analysis.table import visible
from fairshare.units import format_bytes, format_duration

Event = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TenantCourse:
    """One tenant in the cell under way: rates of the last seconds, percentiles of late answers."""

    done: int
    errors: int
    in_flight: int
    requests_per_s: float | None
    output_tokens_per_s: float | None
    ttft_p50_s: float | None
    ttft_p99_s: float | None


@dataclass(slots=True)
class Course:
    """The state that events lead to. What an event lacks or has of another type is passed over."""

    cells: int = 0
    """Those to run in this call."""
    done: int = 0
    failed: int = 0
    left_s: float | None = None
    """Until the end, as it was told at ``left_t``."""
    left_t: float = 0.0
    doing: str = "preparing"
    cell: str | None = None
    phase: str | None = None
    began_t: float = 0.0
    """When what goes on now began (Unix seconds)."""
    tenants: dict[str, TenantCourse] = field(default_factory=dict)
    gpu: dict[str, float] = field(default_factory=dict)
    cpu_percent: float | None = None
    stopping: bool = False
    over: bool = False

    def take(self, event: Event) -> None:
        """Go on by one event."""
        taken = _TAKERS.get(event["event"])
        if taken is not None:
            taken(self, event)

    def remaining_s(self, now_t: float) -> float | None:
        """Seconds until the sweep is over, by what is known; None while nothing is."""
        if self.left_s is None or self.over:
            return None
        return max(0.0, self.left_s - (now_t - self.left_t))

    def summary(self, now_t: float) -> str:
        """All of it on one line."""
        return "; ".join(self.lines(now_t))

    def lines(self, now_t: float) -> list[str]:
        """Cells, what goes on and the time left; each tenant; the machine."""
        parts = [self.headline(now_t), *(_of_tenant(*each) for each in self.tenants.items())]
        return parts + ([self.machine()] if self.machine() else [])

    def headline(self, now_t: float) -> str:
        """``2 of 9 cells done, about 3 min left; two-tenants_mps_c4_r1 measure, for 12 s``."""
        if not self.cells:
            return self.doing
        parts = [f"{self.done} of {self.cells} cells done"]
        parts += [f"{self.failed} failed"] if self.failed else []
        left_s = self.remaining_s(now_t)
        if left_s is not None and self.done < self.cells:
            about = f"about {format_duration(round(left_s))} left"
            parts.append(about if left_s >= 1 else "longer than was estimated")
        what = self.doing if self.cell is None else f"{self.cell} {self.phase or 'begins'}"
        since = f", for {format_duration(round(max(0.0, now_t - self.began_t)))}"
        if self.over:
            what, since = "over", ""
        elif self.stopping:
            what = f"stopping; {what}"
        return f"{', '.join(parts)}; {what}{since}"

    def machine(self) -> str:
        """What GPU and CPUs do: ``GPU 63 %, 12.3 GiB, 251 W, CPU 180 %``."""
        parts = []
        if (busy := self.gpu.get("gpu_utilisation")) is not None:
            parts.append(f"GPU {100 * busy:.0f} %")
        if (used := self.gpu.get("memory_used_bytes")) is not None:
            parts.append(f"{format_bytes(int(used))} GPU memory")
        if (power := self.gpu.get("power_w")) is not None:
            parts.append(f"{power:.0f} W")
        elif self.gpu:
            parts.append("power not told")
        if self.cpu_percent is not None:
            parts.append(f"CPU {self.cpu_percent:.0f} % of one core")
        return ", ".join(parts)


def shown_rate(tenant: TenantCourse) -> str:
    """Requests and tokens per second."""
    requests, tokens = tenant.requests_per_s, tenant.output_tokens_per_s
    return f"{_shown(requests)} req/s, {_shown(tokens)} tok/s"


def shown_ttft(seconds: float | None) -> str:
    """A time to the first token; a dash where there is none yet."""
    return "–" if seconds is None else format_duration(seconds)


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _of_tenant(name: str, tenant: TenantCourse) -> str:
    p50, p99 = shown_ttft(tenant.ttft_p50_s), shown_ttft(tenant.ttft_p99_s)
    errors = f"{tenant.errors} error{'s' * (tenant.errors != 1)}"
    counts = f"{tenant.in_flight} in flight, {errors}"
    return f"{name}: {shown_rate(tenant)}, TTFT P50 {p50} P99 {p99}, {counts}"


def _begun(course: Course, event: Event) -> None:
    fresh = Course(cells=_count(event, "cells"), doing="preparing", began_t=_time(event))
    for name in Course.__slots__:
        setattr(course, name, getattr(fresh, name))


def _left(course: Course, event: Event) -> None:
    course.left_s, course.left_t = _number(event, "left_s"), _time(event)


def _deployment(course: Course, event: Event) -> None:
    course.doing, course.began_t = f"starting servers of {_text(event, 'deployment')}", _time(event)


def _cell(course: Course, event: Event) -> None:
    course.cell, course.phase, course.began_t = _text(event, "cell"), None, _time(event)
    course.tenants, course.gpu, course.cpu_percent = {}, {}, None


def _phase(course: Course, event: Event) -> None:
    course.phase, course.began_t = _text(event, "phase"), _time(event)


def _progress(course: Course, event: Event) -> None:
    tenants = event.get("tenants")
    if isinstance(tenants, Mapping):
        course.tenants = {
            visible(str(name)): _tenant(told)
            for name, told in tenants.items()
            if isinstance(told, Mapping)
        }
    gpu = event.get("gpu")
    if isinstance(gpu, Mapping):
        course.gpu = {str(name): value for name in gpu if (value := _number(gpu, name)) is not None}
    course.cpu_percent = _number(event, "cpu_percent")


def _tenant(told: Event) -> TenantCourse:
    return TenantCourse(
        done=_count(told, "done"),
        errors=_count(told, "errors"),
        in_flight=_count(told, "in_flight"),
        requests_per_s=_number(told, "requests_per_s"),
        output_tokens_per_s=_number(told, "output_tokens_per_s"),
        ttft_p50_s=_number(told, "ttft_p50_s"),
        ttft_p99_s=_number(told, "ttft_p99_s"),
    )


def _finished(course: Course, event: Event) -> None:
    status = _text(event, "status")
    course.done += status != "infeasible"  # those are not among the cells to run
    course.failed += status == "failed"
    if course.cell in (None, _text(event, "cell")):  # else it is another machine's
        course.cell, course.phase, course.doing = None, None, "between cells"
        course.began_t = _time(event)


def _stopping(course: Course, event: Event) -> None:
    course.stopping = True


def _over(course: Course, event: Event) -> None:
    course.over, course.cell, course.doing = True, None, "over"


def _asked(course: Course, event: Event) -> None:
    """A search wants another cell."""
    course.cells += 1


_TAKERS: Mapping[str, Callable[[Course, Event], None]] = {
    "sweep.started": _begun,
    "sweep.left": _left,
    "search.asked": _asked,
    "deployment.started": _deployment,
    "cell.started": _cell,
    "cell.phase": _phase,
    "cell.progress": _progress,
    "cell.finished": _finished,
    "stop.requested": _stopping,
    "sweep.finished": _over,
}


def _number(event: Event, name: str) -> float | None:
    value = event.get(name)
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if fits and value is not None else None


def _count(event: Event, name: str) -> int:
    return int(_number(event, name) or 0)


def _time(event: Event) -> float:
    return _number(event, "t") or 0.0


def _text(event: Event, name: str) -> str:
    return visible(str(event.get(name, "?"))).replace("\n", " ")[:200]
