"""What a server process inherits: an allow-list of the caller's environment, and what is secret."""

from __future__ import annotations

import re
from collections.abc import Mapping

from fairshare.spec.launcher import Engine

_INHERITED = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ"),
        *("LD_LIBRARY_PATH", "LD_PRELOAD", "CUDA_HOME", "CUDA_PATH"),
        *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_MODULE_LOADING"),
        *("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_ENDPOINT", "HF_HUB_OFFLINE"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
        *("FAIRSHARE_CACHE_DIR", "FAIRSHARE_STATE_DIR"),
    }
)
_INHERITED_PREFIXES = ("LC_", "NVIDIA_", "NCCL_", "FAIRSHARE_VIRTUAL")
_SECRET_INHERITED = frozenset(
    {
        *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
        # Proxies because their URLs may hold a password.
        *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    }
)
_SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|(^|_)API_?KEY|PRIVATE_KEY", re.IGNORECASE)


def inherited(caller: Mapping[str, str], engine: Engine) -> dict[str, str]:
    """The caller's variables that any server gets; secrets are not among them.

    The engine's own variables (``VLLM_...``) are left behind on purpose: what decides a
    measurement stands in the launcher. Our own modules reach our own server alone.
    """
    ours = {"PYTHONPATH", "VIRTUAL_ENV"} if engine is Engine.VIRTUAL else set()
    return {
        name: value
        for name, value in caller.items()
        if name in _INHERITED or name in ours or name.startswith(_INHERITED_PREFIXES)
    }


def inherited_secrets(caller: Mapping[str, str]) -> dict[str, str]:
    """The caller's variables that a server gets but that are never shown or stored."""
    return {name: caller[name] for name in sorted(_SECRET_INHERITED & caller.keys())}


def shown_value(name: str, value: str) -> str:
    """The value as it may be shown: three asterisks in place of anything that smells secret."""
    return "***" if _SECRET.search(name) else value
