"""A cluster, here one that works in this process, fills the cache as this machine would."""

import numpy as np
import pytest

from onsight.core.errors import DataError, SpecError
from onsight.core.ray_cluster import Lost
from onsight.data import decoding
from onsight.data.load import load_dataset
from onsight.data.pixel_cache import load_pixels


@pytest.fixture
def cluster(monkeypatch):
    """Tasks of three images, the last one first. Returns the list of what is done, and of what is lost."""
    done, lost = [], []

    def each_task(address, work, shared, tasks):
        for number in reversed(range(len(tasks))):
            if number in lost:
                yield number, Lost("its machine died")
            else:
                done.append(tasks[number])
                yield number, work(shared, tasks[number])

    monkeypatch.setattr(decoding, "PIECE", 3)
    monkeypatch.setattr(decoding, "each_task", each_task)
    return done, lost


def same(one, other):
    return one.broken == other.broken and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in decoding.Rows._fields
    )


def test_a_cluster_decodes_the_same(cluster, photos, monkeypatch, tmp_path):
    (next(photos.rglob("*.*")).parent / "broken.jpg").write_bytes(b"no image")
    dataset = load_dataset(photos)
    monkeypatch.setenv("ONSIGHT_CACHE", str(tmp_path / "here"))
    here = load_pixels(dataset, 16)
    assert here.broken
    monkeypatch.setenv("ONSIGHT_CACHE", str(tmp_path / "cluster"))
    steps = []
    there = load_pixels(dataset, 16, lambda what, done, total: steps.append(done), on="ray://some:1")
    assert same(here, there)
    assert steps[-1] == len(dataset)
    assert sorted(steps) == steps
    names = {path.name for path in there.shared_file().parent.iterdir()}
    assert names == {"images.npy", "headers.npy", "hashes.npy", "contents.npy", "broken.json"}


def test_lost_tasks_are_done_by_the_next_call(cluster, photos):
    done, lost = cluster
    dataset = load_dataset(photos)
    lost.append(1)
    with pytest.raises(DataError, match=r"its machine died\. Repeat the command to go on"):
        load_pixels(dataset, 16, on="ray://some:1")
    lost.clear()
    found = load_pixels(dataset, 16, on="ray://some:1")
    assert done.count(0) <= 2
    assert same(found, load_pixels(dataset, 16))


def test_a_machine_that_does_not_see_the_cache_is_an_error(tmp_path):
    job = decoding.Job(load_dataset("toy"), 8, "cut")
    (tmp_path / decoding.MARK).write_text("of another machine")
    with pytest.raises(SpecError, match=r"does not see .* set ONSIGHT_CACHE to it, under the same path everywhere"):
        decoding._decode_piece((job, tmp_path, "mine"), 0)
    with pytest.raises(SpecError, match="does not see"):
        decoding.open_shared(tmp_path / "images.npy")


def test_images_in_memory_are_on_no_cluster():
    toy = load_dataset("toy")
    with pytest.raises(SpecError, match="those of this named data set are in memory"):
        load_pixels(toy, toy.images.shape[1]).shared_file()
