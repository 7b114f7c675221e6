"""Parts made by a Ray cluster of two nodes with one core each, one of which is killed."""

import numpy as np
import pytest
from PIL import Image
from test_parts import expected, names

import onsight
from onsight.core import ray_cluster
from onsight.core.errors import SpecError
from onsight.core.progress import Reporter
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


@pytest.mark.timeout(280)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_check_and_evaluate_find_the_same_on_a_cluster(cluster, toy_run, tmp_path, monkeypatch):
    toy = onsight.load_dataset("toy")
    for number in np.flatnonzero(toy.parts == "test").tolist():
        folder = tmp_path / "photos" / toy.classes[toy.labels[number]]
        folder.mkdir(exist_ok=True, parents=True)
        Image.fromarray(toy.images[number]).save(folder / f"{number}.png")
    data = tmp_path / "photos"
    found = {}
    for on in (None, "ray"):
        monkeypatch.setenv("ONSIGHT_CACHE", str(tmp_path / f"cache-{on}"))
        checked = onsight.check(data, out=tmp_path / f"check-{on}", on=on, reporter=Reporter())
        scored = onsight.evaluate(toy_run, data=data, tta=True, on=on, reporter=Reporter())
        found[on] = checked.findings, scored.predictions.probabilities, scored.metrics["tta"]["accuracy"]
    assert found[None][0] == found["ray"][0]
    np.testing.assert_allclose(found[None][1], found["ray"][1], atol=1e-6)
    assert found[None][2] == found["ray"][2]


def test_another_version_is_an_error():
    with pytest.raises(SpecError, match=r"has onsight .*, expected 9.9"):
        ray_cluster.call("9.9", print, [], None)
