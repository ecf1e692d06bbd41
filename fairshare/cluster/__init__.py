"""Many machines: a plan's deployments on the nodes of a Ray cluster, one per GPU.

The driver (:mod:`sweep`) hands out deployments and writes the one result folder. On each GPU an
agent (:mod:`agent`) in a process of Ray's starts a process of ours (:mod:`node`), which runs a
deployment as on a single machine and says what happens, file by file (:mod:`messages`).
"""
