"""A small CUDA program: a context, some memory, and work of a kind that is asked for.

``python -m tests.gpu.cuda_client WORK [SECONDS]`` prints what it sees of the GPU as one JSON line
and does its work: ``{"running": true}`` once a kernel is in flight, ``{"done": true}`` at its end,
or the driver's error and its code. It needs the driver's libcuda alone: the kernels are PTX, which
the driver compiles.

WORK: ``hold`` synchronises for each line of its input, until that is closed; ``spin`` keeps an SM
busy for so many seconds; ``fault`` writes to an address that does not exist, which is fatal to all
clients of an MPS server.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys

from fairshare.sharing.probe_cuda import Cuda, CudaError, look

KERNELS = b"""\
.version 6.3
.target sm_75
.address_size 64

.visible .entry spin(.param .u64 duration_ns)
{
    .reg .u64 %now, %end;
    .reg .pred %early;
    ld.param.u64 %end, [duration_ns];
    mov.u64 %now, %globaltimer;
    add.u64 %end, %end, %now;
again:
    mov.u64 %now, %globaltimer;
    setp.lt.u64 %early, %now, %end;
    @%early bra again;
    ret;
}

.visible .entry fault()
{
    .reg .u64 %nowhere;
    .reg .u32 %value;
    mov.u64 %nowhere, 0;
    mov.u32 %value, 1;
    st.global.u32 [%nowhere], %value;
    ret;
}
"""


def launch(cuda: Cuda, kernel: bytes, *values: int) -> None:
    """Put one thread of a kernel to work.

    Raises:
        CudaError: it was refused, or the context had failed already.
    """
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    cuda.call("cuModuleLoadData", ctypes.byref(module), KERNELS)
    cuda.call("cuModuleGetFunction", ctypes.byref(function), module, kernel)
    held = [ctypes.c_uint64(value) for value in values]
    pointers = [ctypes.cast(ctypes.byref(each), ctypes.c_void_p) for each in held]
    arguments = (ctypes.c_void_p * max(1, len(held)))(*pointers)
    cuda.call("cuLaunchKernel", function, 1, 1, 1, 1, 1, 1, 0, None, arguments, None)
    tell(running=True)


def tell(**found: object) -> None:
    """Print one line."""
    print(json.dumps(found), flush=True)


def synchronise(cuda: Cuda) -> None:
    """Wait for what is in flight, and tell what became of it."""
    try:
        cuda.call("cuCtxSynchronize")
    except CudaError as error:
        tell(error=str(error), code=error.code)
    else:
        tell(done=True)


def work(cuda: Cuda, kind: str, seconds: float) -> None:
    """Do what was asked for.

    Raises:
        CudaError: the GPU did not take it.
    """
    if kind == "spin":
        launch(cuda, b"spin", int(seconds * 1e9))
    elif kind == "fault":
        launch(cuda, b"fault")
    else:
        for _ in sys.stdin:
            synchronise(cuda)
    synchronise(cuda)


def main() -> None:
    """See the module."""
    try:
        cuda = Cuda()
        tell(**look(cuda, 0), pid=os.getpid())
        work(cuda, sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 0)
    except CudaError as error:
        tell(error=str(error), code=error.code)


if __name__ == "__main__":
    main()
