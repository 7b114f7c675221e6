import os
from pathlib import Path

import pytest

from onsight.core.errors import SpecError
from onsight.spec import TrainSpec


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
