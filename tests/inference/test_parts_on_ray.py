"""Parts made by a Ray cluster of two nodes with one core each, one of which is killed."""

import pytest
from test_parts import expected, names

from onsight.core.progress import Reporter
from onsight.inference import on_ray
from onsight.inference.part import Part, Settings, Work
from onsight.inference.parts import predict_parts
from trees import write_shards

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(monkeypatch):
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    cluster.add_node(num_cpus=0, object_store_memory=80 << 20, include_dashboard=False)
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=80 << 20) for _ in range(2)]
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield cluster, nodes
    cluster.shutdown()


@pytest.mark.timeout(280)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_every_image_once_and_in_order_after_a_node_is_killed(cluster, toy_run, tmp_path):
    cluster, (_, second) = cluster
    shards = write_shards(tmp_path / "shards", 30, 60)
    answers = tmp_path / "answers"

    class Killer(Reporter):
        """Kills a node once a few parts are there."""

        killed = False

        def work(self, what, done, total):
            if done >= 4 and not self.killed:
                cluster.remove_node(second, allow_graceful=False)
                Killer.killed = True

    made = predict_parts(toy_run, shards, answers, on="ray", reporter=Killer())
    assert Killer.killed
    assert (made.total, made.kept, made.answered, made.unreadable) == (30, 0, 1800, 0)
    assert names(answers) == expected(30, 60)
    here = tmp_path / "here"
    predict_parts(toy_run, shards, here, reporter=Reporter())
    assert all(path.read_bytes() == (here / path.name).read_bytes() for path in answers.glob("*.csv"))


def test_another_version_is_an_error():
    part = on_ray._answer([], "", Settings(), Work("", shard="a.tar"), "9.9")
    assert isinstance(part, Part)
    assert "expected 9.9" in part.error
