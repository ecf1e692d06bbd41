"""Ports of the loopback interface."""

from __future__ import annotations

import socket

from fairshare.processes.ports import LOOPBACK, free_port, is_free


def test_a_chosen_port_is_free_until_somebody_listens() -> None:
    """A port is free when chosen, not free while a server listens, and free again afterwards."""
    port = free_port()
    assert is_free(port)
    with socket.create_server((LOOPBACK, port)):
        assert not is_free(port)
    assert is_free(port)


def test_a_server_on_all_interfaces_takes_the_port_too() -> None:
    """A foreign server that listens on every address is noticed."""
    with socket.create_server(("", 0)) as server:
        assert not is_free(server.getsockname()[1])
