"""The wheel as a user gets it: built, installed where nothing else is, run from another folder."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest

ROOT = Path(__file__).resolve().parents[2]
UV = Path(sys.executable).with_name("uv")

# Building and installing take a few seconds with a warm package cache, more without.
pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True)
class Installed:
    """A clean environment that holds fairshare's wheel."""

    bin: Path
    package: Path
    home: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``fairshare`` from ``/`` as somebody who has no checkout."""
        env = {"PATH": "/usr/bin:/bin", "HOME": str(self.home), "LC_ALL": "C.UTF-8"}
        env["FAIRSHARE_STATE_DIR"] = str(self.home / "state")
        env["FAIRSHARE_LOCK_DIR"] = str(self.home / "locks")
        return call([str(self.bin / "fairshare"), *arguments], env=env)


def call(
    argv: Sequence[str], *, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program from ``/``."""
    return subprocess.run(
        argv, cwd="/", env=env, capture_output=True, text=True, timeout=200, check=False
    )


def new_environment(folder: Path) -> list[str]:
    """Make a virtual environment; return the command that installs into it."""
    if UV.exists():
        call([str(UV), "venv", "--quiet", "--python", sys.executable, str(folder)])
        return [str(UV), "pip", "install", "--quiet", "--python", str(folder / "bin/python")]
    call([sys.executable, "-m", "venv", str(folder)])
    return [str(folder / "bin/python"), "-m", "pip", "install", "--quiet"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel, built from the source distribution and installed in a clean environment."""
    base = tmp_path_factory.mktemp("wheel")
    install = new_environment(base / "venv")
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["build-system"]
    probe = call([*install, "--dry-run", *needed["requires"]])
    if probe.returncode != 0:
        pytest.skip(f"no package index can be reached: {probe.stderr.strip()[-200:]}")
    # Without --wheel, build makes the source distribution and the wheel from that.
    build = [sys.executable, "-m", "build", "--outdir", str(base / "dist"), str(ROOT)]
    built = call(
        [*build, "--installer", "uv"] if UV.exists() else build,
        env={**os.environ, "PATH": f"{UV.parent}:{os.environ.get('PATH', '')}"},
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = (base / "dist").glob("*.whl")
    done = call([*install, str(wheel)])
    assert done.returncode == 0, done.stdout + done.stderr
    (package,) = (base / "venv/lib").glob("python*/site-packages/fairshare")
    home = base / "home"
    home.mkdir()
    return Installed(base / "venv/bin", package, home)


def test_help_answers(installed: Installed) -> None:
    """The installed command answers --help with the commands that there are."""
    done = installed.run("--help")
    assert done.returncode == 0, done.stderr
    assert "matrix" in done.stdout
    assert "report" in done.stdout


def test_every_shipped_file_is_listed(installed: Installed) -> None:
    """Every scenario, launcher and matrix of the checkout can be named after an installation."""
    done = installed.run("list")
    assert done.returncode == 0, done.stderr
    listed = {line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")}
    shipped = {path.stem for path in yaml_files(ROOT)}
    assert len(shipped) > 10
    assert shipped <= listed
    assert "not valid" not in done.stdout


def test_shipped_files_are_valid(installed: Installed) -> None:
    """The files inside the wheel pass its own validation."""
    files = yaml_files(installed.package / "_builtin")
    assert {path.name for path in files} == {path.name for path in yaml_files(ROOT)}
    done = installed.run("validate", *map(str, files))
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(files)


def test_schema_is_printed(installed: Installed) -> None:
    """The JSON Schema for editors can be had without a checkout."""
    done = installed.run("schema", "scenario")
    assert done.returncode == 0, done.stderr
    assert "tenants" in orjson.loads(done.stdout)["properties"]


def test_dry_run_shows_the_plan(installed: Installed) -> None:
    """`matrix --dry-run` finds the shipped sweep, scenario and launcher from any folder."""
    done = installed.run("matrix", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "two-tenants_mps_c4_r1" in done.stdout
    assert str(installed.bin / "python") in done.stdout


def test_cell_runs_to_its_page(installed: Installed) -> None:
    """A cell runs from the wheel alone: stand-in drivers, GPU facts, models and page template."""
    results = installed.home / "results"
    done = installed.run(
        *("run", "two-tenants", "--mode", "mps", "--device", "virtual", "--concurrency", "1"),
        *("--warmup", "0.2", "--window", "1", "--drain", "5", "--output-dir", str(results)),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (results / "analysis/report.html").stat().st_size > 0


def yaml_files(base: Path) -> list[Path]:
    """The files that a user edits, below a checkout or a package."""
    kinds = ("scenarios", "launchers", "matrix")
    return [path for kind in kinds for path in sorted((base / kind).glob("*.yaml"))]
