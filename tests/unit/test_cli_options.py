"""Flags: what people type becomes values, or one sentence about what is wrong."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from fairshare.cli.main import COMMANDS, cli
from fairshare.cli.options import DURATION, INTEGERS, MODES, EngineArg


def test_lists_are_separated_by_commas() -> None:
    """Spaces around commas do not matter; each part is converted."""
    assert INTEGERS.convert("1, 4,16", None, None) == [1, 4, 16]
    assert MODES.convert("mps,mig", None, None) == ["mps", "mig"]


@pytest.mark.parametrize("text", ["", "1,", "1,x", "0"])
def test_a_list_with_a_wrong_part_is_refused(text: str) -> None:
    """An empty or impossible part is an error of usage."""
    with pytest.raises(click.BadParameter):
        INTEGERS.convert(text, None, None)


def test_durations_are_seconds() -> None:
    """A unit may be given."""
    assert DURATION.convert("500ms", None, None) == 0.5
    assert DURATION.convert("3", None, None) == 3.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max_model_len=4096", ("max_model_len", 4096)),
        ("--enforce-eager=true", ("enforce_eager", True)),
        ("dtype=bfloat16", ("dtype", "bfloat16")),
        ("quantization=null", ("quantization", None)),
        ("a=b=c", ("a", "b=c")),
    ],
)
def test_engine_arguments_keep_their_types(text: str, expected: tuple[str, object]) -> None:
    """Values are read as in a launcher's YAML."""
    assert EngineArg().convert(text, None, None) == expected


@pytest.mark.parametrize("text", ["max_model_len", "=3", "a=[1"])
def test_engine_arguments_need_name_and_value(text: str) -> None:
    """What is not NAME=VALUE is refused."""
    with pytest.raises(click.BadParameter):
        EngineArg().convert(text, None, None)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    """Each command of --help exists and answers --help."""
    done = CliRunner().invoke(cli, [name, "--help"])
    assert done.exit_code == 0, done.output
    assert "Usage:" in done.output or "usage:" in done.output
