"""Runs a stand-in of the driver's programs: ``tool.py MODULE GPU_FOLDER ARGUMENTS``.

The simulated GPU is named inside the process alone: its environment, in which foreign MPS daemons
are told from our own, shows none.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
module, os.environ["FAIRSHARE_VIRTUAL_GPU"], *arguments = sys.argv[1:]
sys.exit(importlib.import_module(module).main(arguments))
