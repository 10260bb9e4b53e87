"""A Ray cluster on this machine, for the benchmarks of batches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def ray_cluster(nodes: int, cores: int) -> Iterator[tuple[str, str]]:
    """So many nodes of so many cores each; gives the options of ``studio batch`` that name it."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cores, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            cluster.add_node(num_cpus=cores)
        yield "--ray", cluster.address
    finally:
        cluster.shutdown()
