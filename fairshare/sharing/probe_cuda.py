"""A program that tells what a process with its environment sees of a GPU; prints one JSON object.

It needs the driver's libcuda and nothing else, so that any engine's environment can be tried before
the engine is started. Under MPS it is a client as the server will be. Arguments: the memory cap in
bytes, 0 where there is none; more than the cap must then be refused.
"""

from __future__ import annotations

import ctypes
import json
import sys
from itertools import pairwise
from typing import Any

LIBRARY = "libcuda.so.1"
OUT_OF_MEMORY = 2
_SM_COUNT = 16  # CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
_MIB = 1024**2


class CudaError(Exception):
    """A call of the driver failed: its name, code and the code's name."""

    def __init__(self, call: str, code: int, name: str) -> None:
        super().__init__(f"{call}: {name or 'error'} ({code})")
        self.code = code


class Cuda:
    """The driver; every call is checked."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(LIBRARY)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of libcuda.

        Raises:
            CudaError: it did not succeed.
        """
        code = int(getattr(self._library, name)(*arguments))
        if code:
            text = ctypes.c_char_p()
            self._library.cuGetErrorName(code, ctypes.byref(text))
            raise CudaError(name, code, (text.value or b"").decode())

    def integer(self, name: str, *arguments: Any) -> int:
        """Call a function whose first argument receives an int."""
        value = ctypes.c_int()
        self.call(name, ctypes.byref(value), *arguments)
        return value.value

    def has(self, name: str) -> bool:
        """Whether this driver has a function of that name."""
        return hasattr(self._library, name)


def look(cuda: Cuda, cap_bytes: int) -> dict[str, Any]:
    """What the first device that is visible here has, with a context on it.

    Raises:
        CudaError: there is no device, or no context can be had.
    """
    cuda.call("cuInit", 0)
    count = cuda.integer("cuDeviceGetCount")
    device = cuda.integer("cuDeviceGet", 0)
    name, uuid = ctypes.create_string_buffer(256), ctypes.create_string_buffer(16)
    cuda.call("cuDeviceGetName", name, 256, device)
    # The second version tells a MIG device's own UUID, the first that of its GPU.
    of_mig = "cuDeviceGetUuid_v2"
    cuda.call(of_mig if cuda.has(of_mig) else "cuDeviceGetUuid", uuid, device)
    context = ctypes.c_void_p()
    cuda.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    cuda.call("cuCtxSetCurrent", context)
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    cuda.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    return {
        "devices": count,
        "uuid": _text(uuid.raw),
        "name": name.value.decode("utf-8", "replace"),
        "sm_count": cuda.integer("cuDeviceGetAttribute", _SM_COUNT, device),
        "total_bytes": total.value,
        "free_bytes": free.value,
        "beyond_cap_refused": _is_refused(cuda, cap_bytes + _MIB) if cap_bytes else None,
    }


def _is_refused(cuda: Cuda, size: int) -> bool:
    memory = ctypes.c_uint64()
    try:
        cuda.call("cuMemAlloc_v2", ctypes.byref(memory), ctypes.c_size_t(size))
    except CudaError as error:
        if error.code != OUT_OF_MEMORY:
            raise
        return True
    cuda.call("cuMemFree_v2", memory)
    return False


def _text(uuid: bytes) -> str:
    digits = uuid.hex()
    return "-".join(digits[a:b] for a, b in pairwise((0, 8, 12, 16, 20, 32)))


def main() -> int:
    """Print what was seen, or why nothing was: ``error`` and its ``code``."""
    try:
        seen = look(Cuda(), int(sys.argv[1]))
    except CudaError as error:
        print(json.dumps({"error": str(error), "code": error.code}))
        return 1
    except (OSError, AttributeError) as error:  # no library, or one without a function
        print(json.dumps({"error": str(error), "code": None}))
        return 1
    print(json.dumps(seen))
    return 0


if __name__ == "__main__":
    sys.exit(main())
