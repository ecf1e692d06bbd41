"""Compile caches that outlive a server: where they are, and whether a start was cold or warm."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fairshare import assets
from fairshare.records import fingerprint
from fairshare.serving.interpreter import EngineFacts
from fairshare.serving.models import ModelFacts
from fairshare.spec.launcher import Launcher

_COMPLETED = "completed"


@dataclass(frozen=True, slots=True)
class CompileCache:
    """The cache folder of one (engine version, model, arguments)."""

    folder: Path

    @property
    def cold(self) -> bool:
        """Whether no server has ever become ready with this cache."""
        return not (self.folder / _COMPLETED).exists()

    def prepare(self) -> None:
        """Make the folder, 0700: engines load compiled code from it."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def complete(self) -> None:
        """Remember that a server became ready with this cache."""
        (self.folder / _COMPLETED).touch()

    def env(self, caller: Mapping[str, str]) -> dict[str, str]:
        """The variables that lead engines, PyTorch, Triton and FlashInfer here.

        Moving ``XDG_CACHE_HOME`` would hide downloaded models, so their place is pinned.
        """
        home = Path(caller.get("HOME", "~")).expanduser()
        models = Path(caller.get("XDG_CACHE_HOME") or home / ".cache") / "huggingface"
        return {
            "HF_HOME": caller.get("HF_HOME") or str(models),
            "XDG_CACHE_HOME": str(self.folder),
            "VLLM_CACHE_ROOT": str(self.folder / "vllm"),
            "TORCHINDUCTOR_CACHE_DIR": str(self.folder / "inductor"),
            "TRITON_CACHE_DIR": str(self.folder / "triton"),
            "FLASHINFER_WORKSPACE_BASE": str(self.folder),
        }


def compile_cache(
    facts: EngineFacts, launcher: Launcher, model: ModelFacts, *, adapters: bool = False
) -> CompileCache:
    """The cache that servers of this launcher and model share. Nothing is created yet."""
    definition = [launcher.command, launcher.args, launcher.env, model.fingerprint, adapters]
    return CompileCache(engine_dir(facts) / "compile" / fingerprint(definition)[:12])


def engine_dir(facts: EngineFacts) -> Path:
    """Where facts and caches of one installed engine are kept."""
    return assets.cache_dir() / "engines" / facts.slug


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that another process may read or write at the same moment."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
