"""The errors of the stand-in for ``pynvml``, with its names, numbers and words."""
# ruff: noqa: N801, N818 - the classes are named as pynvml names them

from __future__ import annotations

from typing import ClassVar


class NVMLError(Exception):
    """What NVML answers instead of a value; ``value`` is its return code."""

    value: ClassVar[int] = 999
    text: ClassVar[str] = "Unknown Error"

    def __str__(self) -> str:
        return self.text


class NVMLError_Uninitialized(NVMLError):
    """There is no open session."""

    value, text = 1, "Uninitialized"


class NVMLError_NotSupported(NVMLError):
    """This GPU has no such figure."""

    value, text = 3, "Not Supported"


class NVMLError_NotFound(NVMLError):
    """There is no such device."""

    value, text = 6, "Not Found"


class NVMLError_DriverNotLoaded(NVMLError):
    """There is no kernel driver."""

    value, text = 9, "Driver Not Loaded"


class NVMLError_LibraryNotFound(NVMLError):
    """There is no driver library."""

    value, text = 12, "NVML Shared Library Not Found"


class NVMLError_FunctionNotFound(NVMLError):
    """The driver library is too old for the function."""

    value, text = 13, "Function Not Found"


class NVMLError_GpuIsLost(NVMLError):
    """The GPU does not answer any more."""

    value, text = 15, "GPU is lost"
