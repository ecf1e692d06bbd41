"""The entry point: what it imports before it knows which command is wanted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from fairshare.cli.main import cli

HEAVY = {
    "aiohttp",
    "jinja2",
    "matplotlib",
    "numpy",
    "pandas",
    "pydantic",
    "pynvml",
    "rich",
    "seaborn",
    "tokenizers",
    "transformers",
}


def imported_by(*arguments: str) -> set[str]:
    """The top-level modules that `fairshare ARGUMENTS` has imported when it ends."""
    program = (
        "import sys\n"
        "from fairshare.cli.main import main\n"
        f"sys.argv = ['fairshare', *{list(arguments)!r}]\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    names = {name.partition('.')[0] for name in sys.modules}\n"
        "    print('\\nimported:', *sorted(names))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("imported: ")[2].split())


def test_help_imports_nothing_heavy() -> None:
    """`fairshare --help` answers at once, since it imports no library but click."""
    imported = imported_by("--help")
    assert "fairshare" in imported
    assert not imported & HEAVY


def test_commands_import_what_they_need() -> None:
    """A command that checks YAML does import pydantic: the look at the modules can fail."""
    assert "pydantic" in imported_by("schema", "scenario")


def test_listing_imports_no_analysis() -> None:
    """`fairshare list` needs no library that draws, counts tokens or talks to servers."""
    assert not imported_by("list") & (HEAVY - {"pydantic"})


@pytest.mark.parametrize(("said", "kind"), [("models", "model"), ("policies", "policy")])
def test_kinds_are_listed_in_the_plural_too(said: str, kind: str) -> None:
    """Who asks for `models` is told what `model` tells."""
    plural, singular = (CliRunner().invoke(cli, ["list", word]) for word in (said, kind))
    assert plural.exit_code == 0
    assert plural.output == singular.output


@pytest.mark.parametrize("command", [["list"], ["status", "--json"], ["clean", "--unit"]])
def test_output_on_a_full_disk_is_one_message(command: list[str]) -> None:
    """What cannot print says why in one line, and with no traceback."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "fairshare", *command],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == "error: cannot use the output: No space left on device\n"


def test_a_working_folder_that_is_gone_is_said(tmp_path: Path) -> None:
    """A command that looks into the working folder says that it was removed."""
    gone = tmp_path / "gone"
    gone.mkdir()
    script = 'cd "$1" && rmdir "$1" && shift && exec "$@"'
    program = [sys.executable, "-m", "fairshare", "list"]
    done = subprocess.run(
        ["/bin/sh", "-c", script, "sh", str(gone), *program],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "the working folder has been removed" in done.stderr
