"""A Ray cluster of several machines that are all this one: `python -m tests.e2e.rack HOME ...` in a process of its own.

Each node is called rack-N, has one core and a home of its own, and listens on 127.0.0.1 only. The cluster's address
is printed once it is up; it ends when standard input does.
"""

from __future__ import annotations

import importlib
import sys


def main(homes: list[str]) -> None:
    """Start, say where, wait and end."""
    cluster = importlib.import_module("ray.cluster_utils").Cluster(initialize_head=False)
    try:
        for number, home in enumerate(homes, 1):
            cluster.add_node(
                num_cpus=1,
                node_name=f"rack-{number}",
                include_dashboard=False,
                object_store_memory=80_000_000,
                env_vars={"ARMLX_HOME": home},
            )
        print(cluster.address, flush=True)
        sys.stdin.read()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1:])
