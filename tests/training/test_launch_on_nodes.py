"""The launcher on several nodes: raylets of their own on this machine, which a placement must tell apart."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.training import small_run
from tests.training.test_launch import config
from training.launch import StopWish, train_on_ray

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def three_nodes() -> Iterator[object]:
    """A cluster of three nodes with a CPU each; yields Ray's own handle of it."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=small)
    try:
        for _ in range(2):
            cluster.add_node(**small)
        ray.init(address=cluster.address, log_to_driver=False)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_workers_spread_over_nodes_go_on_when_a_node_is_lost(three_nodes, tmp_path) -> None:
    apart = {"placement": "STRICT_SPREAD", "start_timeout_s": 90.0, "max_failures": 2}
    root = tmp_path / "run"
    root.mkdir()
    (root / "accidents.json").write_text(json.dumps([["hang", 1, 6], ["hang", 0, 6]]))
    lost: list[str] = []

    def lose_a_node(report: dict) -> None:
        if report.get("step") == 5:
            lost.append(remove_a_node_of(root, three_nodes))

    done = train_on_ray(config(root, ray=apart), StopWish(), lose_a_node, work=small_run.train)
    assert done == {"step": 12}
    used = [small_run.nodes(root, rank) for rank in (0, 1)]
    assert all(one != other for one, other in zip(*used, strict=True))
    assert lost[0] in used[0][:6] + used[1][:6]
    assert lost[0] not in used[0][6:] + used[1][6:]
    assert sorted(small_run.losses(root)) == list(range(12))


def remove_a_node_of(root: Path, cluster: object) -> str:
    """Take away a node that a worker of the run is on, and is not the head; its name."""
    used = {small_run.nodes(root, 0)[-1], small_run.nodes(root, 1)[-1]}
    node = next(node for node in cluster.worker_nodes if node.node_id in used)  # type: ignore[attr-defined]
    cluster.remove_node(node, allow_graceful=False)  # type: ignore[attr-defined]
    return node.node_id
