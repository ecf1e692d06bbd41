"""The unit files that are shipped as examples."""

from __future__ import annotations

import configparser
import shlex
from pathlib import Path

import click

from fairshare.cli.main import cli

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "systemd"


def _unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((FOLDER / name).read_text("utf-8"))
    return parser


def test_the_service_runs_a_command_that_exists() -> None:
    """Its command line is one that fairshare takes, and it can be gone on with every evening."""
    words = shlex.split(_unit("fairshare-overnight.service")["Service"]["ExecStart"])
    command = cli.get_command(click.Context(cli), words[1])
    assert command is not None
    context = command.make_context(words[1], words[2:])
    assert context.params["resume"]
    assert context.params["output_dir"] is not None
    assert context.params["max_hours"] > 0


def test_the_service_cleans_up_after_whatever_ended_it() -> None:
    """The same program cleans after every end; only it is asked to end, and no server's fate is."""
    service = _unit("fairshare-overnight.service")["Service"]
    program = shlex.split(service["ExecStart"])[0]
    assert shlex.split(service["ExecStopPost"]) == [program, "clean"]
    assert (service["KillMode"], service["OOMPolicy"]) == ("mixed", "continue")
    assert service["SuccessExitStatus"].split() == ["1", "5", "130"]


def test_what_the_service_says_is_bounded() -> None:
    """Its log has a namespace of its own, with a limit."""
    namespace = _unit("fairshare-overnight.service")["Service"]["LogNamespace"]
    assert _unit(f"journald@{namespace}.conf")["Journal"]["SystemMaxUse"] == "64M"
    assert "OnCalendar" in _unit("fairshare-overnight.timer")["Timer"]
