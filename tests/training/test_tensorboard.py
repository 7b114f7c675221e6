import subprocess
import sys

import pytest

from onsight.training import tensorboard

ROW = {"event": "epoch", "epoch": 3, "loss": 0.5, "val_accuracy": 0.75, "learning_rate": 1e-3, "seconds": 2.0}


def test_an_epoch_can_be_read_back(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    log = tensorboard.EventLog(tmp_path)
    log.write(ROW)
    log.close()
    (file,) = tmp_path.iterdir()
    found = {}
    for event in EventFileLoader(str(file)).Load():
        for value in event.summary.value:
            found[value.tag] = (event.step, round(value.tensor.float_val[0], 4))
    assert found == {"loss/train": (3, 0.5), "accuracy/validation": (3, 0.75), "learning_rate": (3, 0.001)}


def test_tensorflow_is_not_imported(tmp_path):
    pytest.importorskip("tensorboard")
    code = (
        "import sys, pathlib; from onsight.training.tensorboard import EventLog; "
        "log = EventLog(pathlib.Path('logs'), done=2); "
        "log.write({'epoch': 3, 'loss': 1.0}); log.close(); print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_without_the_package_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard, "find_spec", lambda name: None)
    log = tensorboard.EventLog(tmp_path)
    log.write(ROW)
    log.close()
    assert not list(tmp_path.iterdir())
