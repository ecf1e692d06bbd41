"""What travels to the nodes: scenarios, launcher and files, found where the command was given."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from fairshare.cluster.messages import Inputs
from fairshare.errors import SpecError
from fairshare.runner.inputs import named_paths
from fairshare.runner.settings import DEFAULT_LAUNCHER, Flags
from fairshare.spec.launcher import DeviceKind, Engine, Launcher
from fairshare.spec.loading import load_launcher, load_scenario
from fairshare.spec.matrix import Matrix
from fairshare.spec.scenario import Scenario
from fairshare.spec.search import KneeSearch
from fairshare.units import format_bytes

_LONGEST_BYTES = 256 * 1024**2


def kind_asked(matrix: Matrix, flags: Flags) -> DeviceKind | None:
    """The kind of device that is asked for; None: whichever the cluster has.

    Raises:
        SpecError: there is no such kind, or a flag makes no sense for many machines.
    """
    if isinstance(matrix.search, KneeSearch):
        raise SpecError(
            "a search for the knee decides from cell to cell what comes next, on one device",
            hint="leave out --on ray, or --find-knee",
        )
    asked = flags.device or matrix.device
    if flags.gpu is not None or (asked or "").startswith("cuda:"):
        raise SpecError(
            "one GPU is named, and a cluster has many",
            hint="leave out --gpu: Ray gives each deployment a GPU of its own",
        )
    name = flags.launcher or matrix.launcher
    launcher = load_launcher(name)[0] if name else None
    if launcher is not None and launcher.engine is Engine.EXTERNAL:
        raise SpecError(
            "servers that somebody else runs are measured from this machine alone",
            hint="leave out --on ray",
        )
    if asked is None and launcher is not None and DeviceKind.CUDA not in launcher.devices:
        asked = launcher.devices[0].value if launcher.devices else None
    if asked is None:
        return None
    try:
        return DeviceKind(asked.partition(":")[0])
    except ValueError:
        raise SpecError(f"there is no device {asked!r}") from None


def inputs_of(matrix: Matrix, flags: Flags, kind: DeviceKind) -> Inputs:
    """Find and read everything that the nodes need to come to the same plan.

    Raises:
        SpecError: a scenario, launcher or file is missing or wrong.
    """
    loaded = [load_scenario(name) for name in matrix.scenarios]
    name = flags.launcher or matrix.launcher or DEFAULT_LAUNCHER[kind]
    launcher: Launcher = load_launcher(name)[0]
    return Inputs(
        matrix=matrix,
        flags=flags,
        scenarios=tuple(scenario for scenario, _ in loaded),
        launcher=launcher,
        folders={scenario.name: path.resolve().parent for scenario, path in loaded},
        files={scenario.name: _files(scenario, path.parent) for scenario, path in loaded},
        kept=frozenset(s.name for s, _ in loaded if any(t.adapter for t in s.tenants)),
    )


def _files(scenario: Scenario, folder: Path) -> dict[str, bytes]:
    """The files that a scenario names by relative paths, by these paths."""
    found: dict[str, bytes] = {}
    for path in named_paths(scenario):
        written = Path(path).expanduser()
        if written.is_absolute() or (folder / written).is_dir():
            continue  # nodes find it there, or say that they do not
        try:
            if (size := (folder / written).stat().st_size) > _LONGEST_BYTES:
                raise SpecError(
                    f"{folder / written} has {format_bytes(size)}, too much to send to each node",
                    hint="put it where all nodes see it, and name it by its absolute path",
                )
            found[path] = (folder / written).read_bytes()
        except OSError as error:
            raise SpecError(f"{folder / written} cannot be read: {error.strerror}") from None
    return found


def unfold(inputs: Inputs, scenario: str, below: Path) -> Path:
    """Write a scenario's files below a folder; the path that stands for the scenario's own.

    It lies so deep that a path that climbs (``../traces/a.csv``) stays below the folder.
    """
    if scenario in inputs.kept:
        return inputs.folders[scenario] / f"{scenario}.yaml"
    files = inputs.files[scenario]
    depth = max((PurePosixPath(path).parts.count("..") for path in files), default=0)
    base = below.joinpath(scenario, *(["in"] * (depth + 1)))
    base.mkdir(parents=True, exist_ok=True)
    for path, data in files.items():
        target = base / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return base / f"{scenario}.yaml"
