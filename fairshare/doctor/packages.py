"""Our own Python: packages that are known to get in each other's way."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata

from fairshare.doctor.finding import Finding, ok, warn
from fairshare.doctor.intent import Intent

_LOOKED_AT = ("matplotlib", "seaborn", "pynvml", "nvidia-ml-py")


@dataclass(frozen=True, slots=True)
class PackageFacts:
    """Versions of distributions that matter, by name; those that are not installed are absent."""

    versions: Mapping[str, str] = field(default_factory=dict)
    python: str = field(default_factory=platform.python_version)


def gather(intent: Intent) -> PackageFacts:
    """Read what is installed beside fairshare."""
    del intent
    versions = {}
    for name in _LOOKED_AT:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return PackageFacts(versions)


def check(facts: PackageFacts, intent: Intent) -> Iterator[Finding]:
    """What the packages mean for the run."""
    pip = f"{sys.executable} -m pip"
    wrong = False
    matplotlib = facts.versions.get("matplotlib", "0")
    if _minor(matplotlib) >= (3, 13) and _minor(facts.versions.get("seaborn", "0")) < (0, 14):
        wrong = True
        says = f"matplotlib {matplotlib} is newer than seaborn can handle: figures may fail"
        yield warn("packages", says, f"{pip} install 'matplotlib<3.13'")
    if "pynvml" in facts.versions and intent.on_gpu:
        wrong = True
        says = "the deprecated distribution pynvml lies over nvidia-ml-py"
        mend = f"{pip} uninstall -y pynvml && {pip} install --force-reinstall nvidia-ml-py"
        yield warn("packages", says, mend)
    if "nvidia-ml-py" not in facts.versions and intent.on_gpu:
        wrong = True
        yield warn("packages", "nvidia-ml-py is missing", f"{pip} install nvidia-ml-py")
    if not wrong:
        yield ok("packages", f"Python {facts.python}; nothing that is known to break")


def _minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
