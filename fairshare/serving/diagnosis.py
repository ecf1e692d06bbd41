"""Why a server died, read off its log: the first real error, and what to do about known ones."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

_PROCESS = re.compile(r"^\((?P<name>[A-Za-z]+)[^)]*pid=\d+\)\s?")
_LEVEL = re.compile(
    r"^(?:\x1b\[\d+m)*(?:ERROR|CRITICAL|WARNING|INFO|DEBUG)\s+[\d-]+ [\d:.]+ \[[^\]]*\] ?"
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_ERROR = re.compile(
    r"^(?:[A-Za-z_][\w.]*\.)?\w*(?:Error|Exception|Interrupt)\b\s*:|^\S+: error: |^error: "
)
_BARE_ERROR = re.compile(r"^(?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception)$")
_DEPTH = {"Worker": 2, "EngineCore": 1}  # the deeper process fails first, the others follow
# Lines that only repeat that something failed, or warn of what is no failure.
_NO_CAUSE = re.compile(
    r"Engine core initialization failed|EngineDeadError|\[Errno 24\]|resource_tracker"
)
_HINTS = (
    (r"Address already in use|Errno 98", "another program took the port: run it again"),
    (
        r"Available memory on node|less than desired (?:GPU|CPU) memory|Free memory on device",
        "other programs hold the memory: stop them, or lower kv_bytes or the tenant's share",
    ),
    (
        r"Error in memory profiling",
        "a neighbour gave memory back while this engine measured: state kv_bytes in the launcher",
    ),
    (
        r"invalid literal for int\(\) with base 10: 'MIG-",
        "this engine cannot start on a MIG device: take a newer vLLM (0.26 or later), or mode mps",
    ),
    (
        r"NVMLError_InvalidArgument",
        "if it runs on a MIG device, it took that for a GPU: lines of its log that begin with "
        "fairshare say why our plugin did not help",
    ),
    (
        r"out of memory|OutOfMemory|[Cc]an(?:'t|not) allocate memory|bad_alloc|MemoryError",
        "it ran out of memory: lower kv_bytes, max_model_len or max_num_seqs",
    ),
    (
        r"To serve at least one request|No available memory for the cache blocks",
        "raise kv_bytes (or the tenant's share), or lower args.max_model_len",
    ),
    (r"greater than the derived max_model_len", "lower args.max_model_len to what the model has"),
    (
        r"torchvision::nms",
        "torchvision does not fit this torch: uninstall torchvision, torchaudio and torchcodec "
        "from the engine's environment (make vllm-cpu does)",
    ),
    (
        r"Failed to infer device type|No CUDA GPUs are available",
        "this build of the engine needs an NVIDIA GPU: use --device cpu with make vllm-cpu",
    ),
    (r"ModuleNotFoundError|No module named", "the engine's environment lacks a module: install it"),
    (
        r"unrecognized arguments|error: argument|error: the following arguments",
        "correct the launcher's command or args; the engine's --help lists what it takes",
    ),
    (r"trust_remote_code", "set trust_remote_code: true in the launcher if you trust the model"),
    (r"PermissionError|Permission denied", "check who owns the path named above"),
    (r"No space left on device", "free some disk space"),
    (r"CUDA error|busy or unavailable", "nvidia-smi shows what else uses the GPU"),
)


def first_error(lines: Sequence[str]) -> str | None:
    """The line that names the cause: the first error of the last traceback of the deepest process.

    Engines log the cause once and its consequences many times: the deepest process raises, the
    ones above report that it failed, and warnings of the interpreter's exit come last.
    """
    by_depth: dict[int, list[str]] = {}
    for line in lines:
        depth, text = _plain(line)
        by_depth.setdefault(depth, []).append(text)
    for depth in sorted(by_depth, reverse=True):
        if found := _cause(by_depth[depth]):
            return found
    return None


KILLED_HINT = (
    "its log names no cause: it was killed, perhaps by the kernel for want of memory (see dmesg)"
)


def hint_for(text: str) -> str | None:
    """What to do about an error whose line or log says something known."""
    return next((hint for pattern, hint in _HINTS if re.search(pattern, text)), None)


def exit_text(returncode: int | None) -> str:
    """``exited with code 1`` or ``was killed by SIGKILL``."""
    if returncode is None:
        return "stopped answering"
    if returncode < 0:
        try:
            name = signal.Signals(-returncode).name
        except ValueError:
            name = f"signal {-returncode}"
        return f"was killed by {name}"
    return f"exited with code {returncode}"


def _plain(line: str) -> tuple[int, str]:
    """How deep the process is that wrote the line, and the line without its prefixes."""
    text = _COLOUR.sub("", line)
    depth = 0
    while match := _PROCESS.match(text):
        depth = max(depth, _DEPTH.get(match["name"], 0))
        text = text[match.end() :]
    return depth, _LEVEL.sub("", text)


def _cause(lines: Sequence[str]) -> str | None:
    starts = [i for i, line in enumerate(lines) if line.startswith("Traceback (most recent")]
    # A chained exception ("During handling of the above ...") starts with its cause.
    after = starts[-1] if starts else 0
    while len(starts) > 1 and _chained(lines, starts[-2], starts[-1]):
        starts.pop()
        after = starts[-1]
    for at in range(after, len(lines)):
        line = lines[at]
        if (_ERROR.match(line) or _BARE_ERROR.match(line)) and not _NO_CAUSE.search(line):
            # pydantic says what is wrong in the line below.
            below = lines[at + 1].strip() if at + 1 < len(lines) else ""
            return f"{line.strip()}: {below}" if "validation error" in line else line.strip()
    if after:
        return _cause(lines[:after])
    return None


def _chained(lines: Sequence[str], first: int, second: int) -> bool:
    return any(
        line.startswith(("During handling of the above", "The above exception was"))
        for line in lines[first:second]
    )
