"""What the stand-in MPS daemon answers, as observed on the real one."""

from __future__ import annotations

import pytest

from fairshare.virtual.failing import FAIL_ENV
from fairshare.virtual.mps_commands import ServerState, Settings, answer
from fairshare.virtual.mps_partitions import Partitions
from fairshare.virtual.mps_protocol import Limits

GPU = "GPU-74d43ed3-cdf7-e667-3644-bf5b4f46ed65"


def ask(settings: Settings, command: str, server: int | None = None) -> str:
    """One command's output."""
    state = ServerState(server, {11: None, 12: None}) if server is not None else None
    return answer(command.split(), settings, state)


def test_percentages_echo_what_is_in_force() -> None:
    """A good value is echoed with one digit; a bad one changes nothing and echoes the old one."""
    settings = Settings()
    assert ask(settings, "get_default_active_thread_percentage") == "100.0\n"
    assert ask(settings, "set_default_active_thread_percentage 33.34") == "33.3\n"
    assert ask(settings, "set_default_active_thread_percentage 25") == "25.0\n"
    for wrong in ("150", "0", "abc", ""):
        assert ask(settings, f"set_default_active_thread_percentage {wrong}") == "25.0\n"
    assert settings.limits() == Limits(25.0, None)


def test_memory_limits_are_kept_by_device() -> None:
    """Setting prints nothing; reading prints the value, or nothing where none is set."""
    settings = Settings()
    assert ask(settings, "get_default_device_pinned_mem_limit 0") == ""
    assert ask(settings, "set_default_device_pinned_mem_limit 0 2048MB") == ""
    assert ask(settings, "set_default_device_pinned_mem_limit 7 1G") == ""
    assert ask(settings, "get_default_device_pinned_mem_limit 0") == "2G\n"
    assert settings.limits() == Limits(100.0, 2 * 1024**3)


@pytest.mark.parametrize(
    ("given", "shown"), [("1000M", "1000M"), ("1536M", "1G"), ("20345M", "19G")]
)
def test_memory_limits_are_shown_in_whole_gib(given: str, shown: str) -> None:
    """From one GiB on the daemon shows whole GiB, rounded down, while it keeps what was set."""
    settings = Settings()
    ask(settings, f"set_default_device_pinned_mem_limit 0 {given}")
    assert ask(settings, "get_default_device_pinned_mem_limit 0") == f"{shown}\n"
    assert settings.limits().memory_bytes == int(given[:-1]) * 1024**2


def test_servers_and_clients_are_listed() -> None:
    """The server's PID, its state and its clients; unknown servers are not found."""
    settings = Settings()
    assert ask(settings, "get_server_list") == ""
    assert ask(settings, "ps") == "Server not found\n"
    assert ask(settings, "get_server_list", 99) == "99\n"
    assert ask(settings, "get_client_list 99", 99) == "11\n12\n"
    assert ask(settings, "get_server_status 99", 99) == "ACTIVE\n"
    assert ask(settings, "get_active_thread_percentage 99", 99) == "100.0\n"
    assert ask(settings, "get_client_list 1234", 99) == "Server 1234 not found\n"
    assert ask(settings, "get_server_status") == "A server PID is required\n"
    assert ask(settings, "bogus") == 'Unknown command "bogus"\n'


def test_a_client_of_no_server_cannot_be_terminated() -> None:
    """The three lines of the real program, of which only the exit code is misleading."""
    said = "Server 1 not found\nServer 1 not found!\n1\n"
    assert ask(Settings(), "terminate_client 1 2") == said


def test_a_faulty_server_says_so() -> None:
    """After a fatal fault of a client the state is FAULT."""
    state = ServerState(99, {11: None}, fault=True)
    assert answer(["get_server_status", "99"], Settings(), state) == "FAULT\n"


def test_daemons_environment_sets_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """A percentage in the daemon's environment is its default; nonsense is ignored."""
    monkeypatch.setenv("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "33")
    assert Settings.from_environment().thread_percentage == 33.0
    monkeypatch.setenv("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "200")
    assert Settings.from_environment().thread_percentage == 100.0


@pytest.mark.parametrize(
    ("knob", "noun", "value", "found"),
    [
        ("mps_ignores_percentage", "active_thread_percentage", "25", "100.0\n"),
        ("mps_ignores_memory_limit", "device_pinned_mem_limit", "0 2G", ""),
    ],
)
def test_knobs_make_the_daemon_ignore_what_is_set(
    knob: str, noun: str, value: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the knob on, the value read back is not the one that was set."""
    monkeypatch.setenv(FAIL_ENV, knob)
    settings = Settings()
    ask(settings, f"set_default_{noun} {value}")
    assert ask(settings, f"get_default_{noun} 0") == found


def test_partitions_are_unknown_without_their_flag() -> None:
    """A daemon that was not started with -S does not know the commands."""
    assert ask(Settings(), "lspart") == 'Unknown command "lspart"\n'
    assert ask(Settings(), f"sm_partition add {GPU} 1").startswith("Unknown command")


def test_partitions_take_chunks_that_are_then_gone() -> None:
    """A partition is named by the answer, listed with its SMs, and free again once removed."""
    settings = Settings(partitions=Partitions(GPU, 80))
    gpu, _, name = ask(settings, f"sm_partition add {GPU} 7").strip().partition("/")
    assert gpu == GPU
    rows = [line.split() for line in ask(settings, "lspart").splitlines()]
    assert [GPU[:12], "-", "3", "7", "24", "56", "-"] in rows
    assert [GPU[:12], name, "-", "7", "-", "56", "-"] in rows
    assert settings.partitions is not None
    assert settings.partitions.percentage(f"{GPU}/{name}") == 70.0
    assert "3 chunks are free" in ask(settings, f"sm_partition add {GPU} 4")
    assert ask(settings, f"sm_partition rm {GPU[:12]} {name}") == ""
    assert settings.partitions.free == 10
    assert "not found" in ask(settings, f"sm_partition rm {GPU[:12]} {name}")
