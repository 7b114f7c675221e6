import os
from pathlib import Path

import pytest

import onsight
from onsight.core.errors import SpecError
from onsight.spec import Role, TrainSpec, fields_with, roles_of
from onsight.training.train import as_spec


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "resnet"}, "No model 'resnet'. Known: mlp.*Did you mean 'resnet"),
        ({"preset": "fats"}, "No preset 'fats'"),
        ({"augmentation": "flp"}, "Did you mean 'flip'"),
        ({"backend": "torch"}, "No backend 'torch'. Known: tensorflow, jax"),
        ({"epochs": 0}, "epochs=0 cannot be used: input should be greater than or equal to 1"),
        ({"learning_rate": "fast"}, "learning_rate=fast cannot be used"),
        ({"min_precision": 1}, "min_precision=1"),
        ({"freeze": "some"}, "freeze"),
        ({"epoch": 3}, "No setting 'epoch'.*Did you mean 'epochs'"),
    ],
)
def test_bad_values_say_what_is_expected(fields, message):
    with pytest.raises(SpecError, match=message):
        TrainSpec(**fields)


def test_a_path_is_data(tmp_path):
    assert TrainSpec(data=tmp_path).data == str(tmp_path)
    assert TrainSpec(data=Path("digits")).data == os.path.join(".", "digits")  # a folder that is called like a set


def test_every_option_has_a_role():
    for field in TrainSpec.model_fields:
        assert roles_of(field), field
    for role in Role:
        assert fields_with(role), role


def test_a_student_takes_each_option_from_its_teacher_or_has_its_own():
    teachers, students = {*fields_with(Role.TEACHERS)}, {*fields_with(Role.STUDENTS)}
    assert teachers | students == {*TrainSpec.model_fields}
    assert teachers & students == {"min_precision"}  # the teacher's, unless the student has its own
    assert {*fields_with(Role.PRUNED_WITH)} <= students


def test_the_data_alone_is_a_spec_and_other_calls_show_the_right_line():
    assert TrainSpec("photos/") == TrainSpec(data="photos/")
    assert as_spec("photos/", {}) == TrainSpec(data="photos/")
    assert as_spec(None, {}) == TrainSpec()
    with pytest.raises(SpecError, match="given twice"):
        TrainSpec("photos/", data="others/")
    with pytest.raises(SpecError, match=r"Call: onsight\.train\(onsight\.TrainSpec\(data='photos/', epochs=3\)\)"):
        onsight.train("photos/", epochs=3)
    with pytest.raises(
        SpecError, match=r"not list\. Call: onsight\.train_seeds\(onsight\.TrainSpec\(data=.photos/.\)\)"
    ):
        onsight.train_seeds(["photos/"])
    with pytest.raises(SpecError, match=r"onsight\.learning_curve\(onsight\.TrainSpec\(data='digits', seed=1\)\)"):
        onsight.learning_curve(TrainSpec(data="digits"), seed=1)


def test_classes_are_a_list_or_a_text_with_commas():
    assert TrainSpec("photos/", classes="cat, dog").classes == ("cat", "dog")
    assert TrainSpec("photos/", exclude=["cat, tame", "dog"]).exclude == ("cat, tame", "dog")
    asked = TrainSpec("photos/", layout="classes", exclude=["cat, tame"], label_column="kind")
    assert TrainSpec.recorded(asked.model_dump(mode="json")).reading == asked.reading
    assert asked.reading == onsight.Reading("classes", (), ("cat, tame",), None, "kind")
