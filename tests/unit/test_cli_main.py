"""The entry point: what it imports before it knows which command is wanted."""

from __future__ import annotations

import subprocess
import sys

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
