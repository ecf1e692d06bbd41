"""The first real error of an engine's log, and what to do about it."""

from __future__ import annotations

import pytest

from fairshare.serving.diagnosis import exit_text, first_error, hint_for

CORE = "(EngineCore pid=22) "
STAMP = "ERROR 11-21 12:00:00 [core.py:100] "
KV_LOG = [
    "(APIServer pid=11) WARNING 11-21 12:00:00 [x.py:1] OSError: [Errno 24] see ulimit",
    f"{CORE}{STAMP}EngineCore failed to start.",
    f"{CORE}{STAMP}Traceback (most recent call last):",
    f'{CORE}{STAMP}  File "core.py", line 1, in run',
    f"{CORE}{STAMP}ValueError: To serve at least one request with the model's max seq len (2048)",
    f"{CORE}Process EngineCore:",
    f"{CORE}Traceback (most recent call last):",
    f"{CORE}ValueError: To serve at least one request with the model's max seq len (2048)",
    "(APIServer pid=11) Traceback (most recent call last):",
    '(APIServer pid=11)   File "main.py", line 1',
    "(APIServer pid=11) RuntimeError: Engine core initialization failed. See root cause above.",
    "/usr/lib/resource_tracker.py:1: UserWarning: resource_tracker: leaked",
]


def test_the_deepest_process_names_the_cause() -> None:
    """The engine's own error is told, not that of the API server that only noticed."""
    found = first_error(KV_LOG)
    assert found is not None
    assert found.startswith("ValueError: To serve at least one request")
    hint = hint_for(found)
    assert hint is not None
    assert "kv_bytes" in hint


def test_an_error_without_an_engine_process_is_found() -> None:
    """A failure before the engine exists is read from the only process there is."""
    log = [
        "Traceback (most recent call last):",
        "  x",
        "OSError: [Errno 98] Address already in use",
    ]
    assert first_error(log) == "OSError: [Errno 98] Address already in use"


def test_a_usage_error_is_found_below_its_usage_text() -> None:
    """The one line that matters is found after hundreds that do not."""
    log = ["usage: api_server.py [-h]", *["  [--x]"] * 300]
    log += ["api_server.py: error: unrecognized arguments: --no-such-flag"]
    assert first_error(log) == log[-1]


def test_of_chained_exceptions_the_cause_is_told() -> None:
    """The exception that was raised first is the cause; the one raised while handling it is not."""
    log = [
        "Traceback (most recent call last):",
        "KeyError: 'weights'",
        "",
        "During handling of the above exception, another exception occurred:",
        "",
        "Traceback (most recent call last):",
        "RuntimeError: could not load",
    ]
    assert first_error(log) == "KeyError: 'weights'"


def test_a_validation_error_is_told_with_its_reason() -> None:
    """The headline of a validation error says nothing; the line below it does."""
    log = [
        "(APIServer pid=1) Traceback (most recent call last):",
        "(APIServer pid=1) pydantic_core.ValidationError: 1 validation error for ModelConfig",
        "(APIServer pid=1)   Value error, User-specified max_model_len (9) is greater than the",
    ]
    found = first_error(log)
    assert found is not None
    assert "User-specified max_model_len (9)" in found


def test_a_log_without_an_error_has_none() -> None:
    """No error is invented where the log has none."""
    assert first_error(["INFO 11-21 12:00:00 [x.py:1] all is well", ""]) is None
    assert first_error([]) is None


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0, "exited with code 0"),
        (3, "exited with code 3"),
        (-9, "was killed by SIGKILL"),
        (-250, "was killed by signal 250"),
        (None, "stopped answering"),
    ],
)
def test_an_end_is_told_in_words(code: int | None, text: str) -> None:
    """An exit code or signal is named as people know it."""
    assert exit_text(code) == text


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("OSError: [Errno 98] Address already in use", "port"),
        ("torch.OutOfMemoryError: CUDA out of memory", "memory"),
        ("RuntimeError: operator torchvision::nms does not exist", "torchvision"),
        ("RuntimeError: Failed to infer device type", "NVIDIA GPU"),
        ("ModuleNotFoundError: No module named 'x'", "module"),
        ("AssertionError: Error in memory profiling. Initial free memory 82.94 GiB", "kv_bytes"),
        ("ValueError: invalid literal for int() with base 10: 'MIG-377e0049'", "newer vLLM"),
        ("vllm.third_party.pynvml.NVMLError_InvalidArgument: Invalid Argument", "plugin"),
        ("x.py: error: unrecognized arguments: --y", "args"),
    ],
)
def test_known_causes_have_a_next_step(line: str, word: str) -> None:
    """Causes that are known from the field come with what to do about them."""
    assert word in (hint_for(line) or "")


def test_an_unknown_cause_gets_no_invented_hint() -> None:
    """Nothing is advised where nothing is known."""
    assert hint_for("ZeroDivisionError: division by zero") is None
