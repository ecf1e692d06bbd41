"""What the stand-in MPS daemon answers, as observed on the real one."""

from __future__ import annotations

import pytest

from fairshare.virtual.mps_commands import Settings, answer
from fairshare.virtual.mps_protocol import Limits
from fairshare.virtual.state import FAIL_ENV


def ask(settings: Settings, command: str, server: int | None = None) -> str:
    """One command's output."""
    return answer(command.split(), settings, server, [11, 12])


def test_percentages_echo_what_is_in_force() -> None:
    """A good value is echoed; a bad one changes nothing and echoes the old one."""
    settings = Settings()
    assert ask(settings, "get_default_active_thread_percentage") == "100.0\n"
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


def test_servers_and_clients_are_listed() -> None:
    """The server's PID, its state and its clients; unknown servers are not found."""
    settings = Settings()
    assert ask(settings, "get_server_list") == ""
    assert ask(settings, "get_server_list", 99) == "99\n"
    assert ask(settings, "get_client_list 99", 99) == "11\n12\n"
    assert ask(settings, "get_server_status 99", 99) == "ACTIVE\n"
    assert ask(settings, "get_client_list 1234", 99) == "Server 1234 not found\n"
    assert ask(settings, "get_server_status") == "A server PID is required\n"
    assert ask(settings, "bogus") == 'Unknown command "bogus"\n'


def test_daemons_environment_sets_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """A percentage in the daemon's environment is its default; nonsense is ignored."""
    monkeypatch.setenv("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "33")
    assert Settings.from_environment().thread_percentage == 33.0
    monkeypatch.setenv("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "200")
    assert Settings.from_environment().thread_percentage == 100.0


def test_knob_makes_the_daemon_ignore_the_percentage(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the knob on, the value read back is not the one that was set."""
    monkeypatch.setenv(FAIL_ENV, "mps_ignores_percentage")
    assert ask(Settings(), "set_default_active_thread_percentage 25") == "100.0\n"
