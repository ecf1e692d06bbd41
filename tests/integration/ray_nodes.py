"""A Ray cluster in a process of its own; its nodes are told to come and go on standard input.

``add NAME VARIABLE=VALUE ...`` starts a node, the first one as the head; ``kill NAME`` kills one;
each is answered by a line. The end of the input ends the cluster. Ray reads its variables once,
when it is imported, and keeps its files in the folder that is the argument: paths of sockets must
be short.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import psutil
from ray.cluster_utils import Cluster

SMALL: dict[str, Any] = {
    "num_cpus": 0,
    "num_gpus": 0,
    "object_store_memory": 80 * 1024**2,
    "resources": {"fairshare_virtual": 1},
    "include_dashboard": False,
    "include_log_monitor": False,
    "no_monitor": True,
}
TOO_SLOW = "timed out during startup"  # Ray's words where a node takes longer than 30 s
SYSTEM = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 4,
    "health_check_timeout_ms": 4000,
}


def main(folder: str) -> None:
    """Obey until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # Ray speaks on standard output as well
    cluster = Cluster()
    nodes: dict[str, Any] = {}
    try:
        for line in sys.stdin:
            verb, name, *variables = line.split()
            if verb == "kill":
                cluster.remove_node(nodes[name], allow_graceful=False)
                answers.write(f"{name} is gone\n")
                continue
            env = dict(each.split("=", 1) for each in variables)
            of_head = {} if nodes else {"_system_config": SYSTEM, "temp_dir": folder}
            nodes[name] = cluster.add_node(**SMALL, **of_head, env_vars=env)
            answers.write(f"{cluster.address} {nodes[name].node_id}\n")
    except Exception as error:
        if TOO_SLOW not in str(error):
            raise
        answers.write(f"{TOO_SLOW}\n")
    finally:
        cluster.shutdown()
        for process in psutil.Process().children(recursive=True):  # of a node that did not start
            process.kill()


if __name__ == "__main__":
    main(sys.argv[1])
