"""`label`: which images it asks about and how it names them, and what it refuses."""

import shutil
from pathlib import Path

import pytest

import onsight
from onsight.core.errors import DataError, SpecError
from onsight.data.reading import LabelsFile, Reading
from onsight.labelling.label import images_of, label


def trained(photos):
    return onsight.train(
        onsight.TrainSpec(data=str(photos), model="mlp", epochs=1, batch_size=8), reporter=onsight.Reporter()
    )


def test_images_of_the_run_are_named_as_in_its_data_set_and_others_by_their_paths(photos, tmp_path):
    run = trained(photos)
    pool = tmp_path / "pool"
    (pool / "new").mkdir(parents=True)
    shutil.copy(photos / "red" / "1.jpg", pool / "new" / "a.jpg")
    for given in (None, photos, "photos"):
        dataset, labels, paths = images_of(run, given, Path("labels.csv"))
        assert (len(dataset), paths[0], labels[0]) == (72, "blue/0.jpg", 0)
    dataset, labels, paths = images_of(run, photos / "red", Path("labels.csv"))
    assert {*paths} == {f"red/{i}.jpg" for i in range(24)}
    dataset, labels, paths = images_of(run, pool, Path("elsewhere/labels.csv"))
    assert paths == [str(pool / "new" / "a.jpg")]
    assert labels.tolist() == [-1]
    shutil.rmtree(photos)  # a run whose data is gone still helps to label other images
    assert images_of(run, pool, Path("labels.csv"))[2] == paths


def test_what_is_refused_before_any_work(photos, tmp_path):
    run = trained(photos)
    settings = {"announce": lambda *_: None, "reporter": onsight.Reporter()}
    with pytest.raises(SpecError, match="is no folder of images"):
        label(run, "nowhere", **settings)
    with pytest.raises(SpecError, match="there is no folder"):
        label(run, out=Path("nowhere/labels.csv"), **settings)
    with pytest.raises(DataError, match=r"'labels\.txt' are not in a \.csv file"):
        label(run, out=Path("labels.txt"), **settings)
    (tmp_path / "mine.csv").write_text("label,path\nred,1.jpg\n")
    with pytest.raises(DataError, match="does not begin with the line path,label,previous,who,when"):
        label(run, out=Path("mine.csv"), **settings)
    with pytest.raises(SpecError, match="--no-token works on this machine only"):
        label(run, host="0.0.0.0", token=False, **settings)


def test_the_reading_of_a_spec_has_the_labels(tmp_path):
    spec = onsight.TrainSpec(data="photos", labels=tmp_path / "labels.csv")
    assert spec.reading == Reading(labels=LabelsFile(tmp_path / "labels.csv"))
