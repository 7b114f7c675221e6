import shutil

import pytest

import onsight
from onsight.core.errors import OnsightError
from onsight.models.model_file import read_description
from onsight.runs.images import open_images
from onsight.serving.drift import Watch, read_reference
from onsight.serving.reference import write_reference


def test_the_file_counts_what_the_model_answers_on_validation_images(knowing_run, tmp_path):
    shutil.copytree(knowing_run.folder, tmp_path / "run")
    run = onsight.open_run(tmp_path / "run")
    content = write_reference(run.folder)
    images = open_images(run, ("validation",))
    pixels = images.pixels.images[images.readable("validation")]
    found = onsight.predict(run, list(pixels))
    assert content["n"] == len(found)
    assert content["counts"]["classes"] == [sum(each.label == name for each in found) for name in run.classes]
    assert {key: sum(counts) for key, counts in content["counts"].items()} == dict.fromkeys(
        ("classes", "confidence", "distance"), len(found)
    )
    weights = read_description(run.model_folder).weights_sha256
    watch = Watch(run.classes, read_reference(run.folder, weights))
    for each in found:  # the server counts the same images in the same bins
        top = [[run.classes.index(each.label), round(each.probability, 6)]]
        watch.record({"top": top, "reason": each.reason, "distance": round(each.distance, 6)})
    assert watch.counts == content["counts"]
    assert not watch.summary()["drift"]["alarm"]


def test_without_the_data_nothing_is_written(toy_run, tmp_path):
    shutil.copytree(toy_run.folder, tmp_path / "run")
    spec = tmp_path / "run" / "spec.json"
    spec.write_text(spec.read_text().replace('"data": "toy"', '"data": "gone/"'))
    with pytest.raises(OnsightError):
        write_reference(tmp_path / "run")
    assert not (tmp_path / "run" / "validation_answers.json").exists()
