"""The fake server with a CUDA context and memory of its own: an engine for a test without one."""

from __future__ import annotations

import ctypes

from fairshare.sharing.probe_cuda import Cuda, look
from fairshare.testing.fake_program import main

MEMORY_BYTES = 256 * 1024**2

if __name__ == "__main__":
    cuda = Cuda()
    look(cuda, 0)
    memory = ctypes.c_uint64()
    cuda.call("cuMemAlloc_v2", ctypes.byref(memory), ctypes.c_size_t(MEMORY_BYTES))
    main()
