import json
import sys
from types import SimpleNamespace

import pytest

import onsight
from onsight.core.errors import DataError, RunError, SpecError
from onsight.core.progress import Reporter
from onsight.training.distributed import Ranks
from onsight.training.shared_run import check_alike, check_shared, from_first

pytestmark = pytest.mark.usefixtures("only_training")

SPEC = onsight.TrainSpec("toy", model="mlp", batch_size=16, precision="float32", backend="jax")
MEMBERS = {
    "classes": ["cat", "dog"],
    "counts": {"train": {"cat": 3, "dog": 2}, "test": {"cat": 1, "dog": 1}},
    "digests": {"train": "ab", "test": "cd"},
}


class Gathered(Ranks):
    """Process 1 of two, whose process 0 has other facts."""

    def gathered(self, text):
        return [json.dumps(self.first_facts), text]


def both(settings=None, **members):
    ranks = Gathered(1, 2)
    spec = {"data": "/here/toy", "model": "mlp", "precision": "float32"}
    ranks.first_facts = [{"model": "mlp", "precision": "float32"} | (settings or {}), MEMBERS | members]
    check_alike(ranks, {"spec": spec}, MEMBERS)


def test_processes_with_the_same_images_and_settings_may_train_together():
    both()  # the path of the data may differ
    check_alike(Ranks(0, 1), {"spec": {}}, {})


def test_processes_with_other_images_are_refused():
    with pytest.raises(DataError, match="Process 1 sees other data than process 0: 7 images against 7 images"):
        both(digests={"train": "ab", "test": "ef"})
    with pytest.raises(DataError, match="7 images against 6 images"):
        both(counts={"train": {"cat": 2, "dog": 2}, "test": {"cat": 1, "dog": 1}})


def test_processes_with_other_settings_are_refused():
    message = "Process 1 would train with precision=float32, process 0 with bfloat16.*--precision bfloat16"
    with pytest.raises(SpecError, match=message):
        both({"precision": "bfloat16"})


@pytest.fixture
def four_devices(monkeypatch):
    """Let `import jax` find four devices: the real one, once imported, warns whenever a later test forks."""
    monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(device_count=lambda: 4))


@pytest.mark.parametrize(
    ("changes", "images", "message"),
    [
        ({"batch_size": 18}, 100, "Batches of 18 cannot be shared equally by 2 processes with 4 devices. Choose "
         "--batch-size 16 or --batch-size 20"),
        ({"batch_size": 1026}, 5000, "Batches of 1,026 .* Choose --batch-size 1024 or --batch-size 1028"),
        ({}, 15, r"Batches of 15 \(there are 15 training images\).* Choose --batch-size 12\."),
        ({"batch_size": 3}, 3, "Choose fewer processes"),
        ({"freeze": "all"}, 100, "freeze=all fits only a head, at once, which 2 processes cannot share"),
        ({"backend": "tensorflow"}, 100, "on JAX only, and this run is trained on tensorflow"),
        ({"teacher": "runs/teacher"}, 100, "Distilling and pruning do not share their work between 2 processes"),
    ],
)  # fmt: skip
def test_what_cannot_be_shared_is_refused(changes, images, message, four_devices):
    with pytest.raises(SpecError, match=message):
        check_shared(SPEC.model_copy(update=changes), Ranks(1, 2), images)
    check_shared(SPEC, Ranks(1, 2), 100)
    check_shared(SPEC.model_copy(update=changes), Ranks(0, 1), images)


class Line(Ranks):
    """One of two processes; what the first one tells goes through a list."""

    said: list

    def told(self, data=b""):
        if self.first:
            self.said.append(data)
        return self.said[0]


def test_the_first_process_decides_for_all():
    first, second = Line(0, 2), Line(1, 2)
    first.said = second.said = []
    assert from_first(first, lambda: 3, str, int) == 3
    assert from_first(second, lambda: pytest.fail("only the first one does it"), str, int) == 3
    first.said.clear()

    def fail():
        raise RunError("There is no run.")

    for ranks in (first, second):
        with pytest.raises(RunError, match="There is no run"):
            from_first(ranks, fail, str, int)


def test_a_training_can_be_continued_by_its_own_options(monkeypatch):
    from onsight.training.train import train_or_resume

    spec = onsight.TrainSpec("toy", model="mlp", epochs=1, batch_size=32)
    run = train_or_resume(spec, reporter=Reporter())
    assert train_or_resume(spec, reporter=Reporter()).folder == run.folder
    (run.model_folder).rename(run.folder / "gone")  # as if training had been stopped before its end
    assert train_or_resume(spec, reporter=Reporter()).folder == run.folder
    assert run.is_trained
    other = train_or_resume(onsight.TrainSpec("toy", model="mlp", epochs=1, batch_size=16), reporter=Reporter())
    assert other.folder != run.folder
