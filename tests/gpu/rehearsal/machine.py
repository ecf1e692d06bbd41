"""A machine with an NVIDIA GPU, as far as the tests of one can tell: for rehearsals without it.

The driver's programs are the simulated GPU's stand-ins, NVML is its stand-in under the name
``pynvml``, and ``libcuda.so.1`` is built from ``libcuda.c``. To fairshare the device is ``cuda``:
nothing of it knows that this is a rehearsal. What only hardware can tell, no rehearsal tells.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from fairshare.virtual.driver import install

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
_PROGRAM = """\
#!/bin/sh
exec {python} -S -P {here}/tool.py {module} {gpu} "$@"
"""
_NVML = """\
import sys
from pathlib import Path

sys.path.append({root!r})
from fairshare.virtual.nvml import StandInNvml

_library = StandInNvml(Path({gpu!r}))


def __getattr__(name):
    return getattr(_library, name)
"""
_MODULES = {
    "nvidia-smi": "fairshare.virtual.nvidia_smi",
    "nvidia-cuda-mps-control": "fairshare.virtual.mps_control",
}


def prepare(folder: Path) -> dict[str, str]:
    """Make such a machine in ``folder``; the variables that lead to it."""
    gpu = folder / "gpu"
    install(gpu, "h200")
    (programs := folder / "bin").mkdir()
    for name, module in _MODULES.items():
        program = programs / name
        program.write_text(
            _PROGRAM.format(
                python=shlex.quote(sys.executable),
                here=shlex.quote(str(HERE)),
                module=module,
                gpu=shlex.quote(str(gpu)),
            )
        )
        program.chmod(0o700)
    (modules := folder / "python").mkdir()
    (modules / "pynvml.py").write_text(_NVML.format(root=str(ROOT), gpu=str(gpu)))
    (library := folder / "lib").mkdir()
    told = {"PYTHON": sys.executable, "HELPER": HERE / "helper.py", "GPU": gpu}
    subprocess.run(
        ["cc", "-Wall", "-Wextra", "-Werror", "-Wno-unused-result", "-shared", "-fPIC"]
        + [f'-D{name}="{value}"' for name, value in told.items()]
        + ["-o", library / "libcuda.so.1", HERE / "libcuda.c"],
        check=True,
    )
    return {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "LD_LIBRARY_PATH": str(library),
        "PYTHONPATH": f"{modules}{os.pathsep}{ROOT}",
    }
