import os

import numpy as np
import pytest

from onsight.core.errors import RunError
from onsight.training import checkpoints
from onsight.training.checkpoints import checkpoint_folders, load_checkpoint, save_checkpoint


def save(root, number):
    return save_checkpoint(root, {"a": np.full(3, number, np.float32), "b": np.uint32(number)}, {"epoch": number})


def test_a_checkpoint_is_read_back_as_written_and_the_newest_two_are_kept(tmp_path):
    for number in range(4):
        save(tmp_path / "c", number)
    arrays, state, folder = load_checkpoint(tmp_path / "c")
    assert state == {"epoch": 3}
    assert np.array_equal(arrays["a"], np.full(3, 3, np.float32))
    assert arrays["b"] == 3
    assert arrays["b"].shape == ()
    assert arrays["b"].dtype == np.uint32
    assert [path.name for path in checkpoint_folders(tmp_path / "c")] == ["00000003", "00000004"]
    assert folder.name == "00000004"


@pytest.mark.parametrize("file", ["state.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_checkpoint_is_skipped_for_the_previous_one(tmp_path, file, damage):
    save(tmp_path, 1)
    path = save(tmp_path, 2) / file
    content = path.read_bytes()
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if damage == "cut" else content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    if load_checkpoint(tmp_path).state["epoch"] == 2:  # only white space at the end of the manifest was cut off
        assert file == "manifest.json"
        assert damage == "cut"
    else:
        assert load_checkpoint(tmp_path).state["epoch"] == 1


@pytest.mark.parametrize("call", ["mkdir", "save_file", "fsync", "write_json", "rename", "sync_folder"])
def test_a_failure_at_any_write_leaves_a_valid_checkpoint(tmp_path, monkeypatch, call):
    save(tmp_path, 1)

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    owner = {"mkdir": checkpoints.Path, "fsync": os, "rename": os}.get(call, checkpoints)
    with monkeypatch.context() as patch:
        patch.setattr(owner, call, fail)
        if call == "mkdir":
            patch.setattr(checkpoints.Path, "mkdir", lambda self, exist_ok=False, **more: None if exist_ok else fail())
        with pytest.raises(OSError, match="No space"):
            save(tmp_path, 2)
    assert load_checkpoint(tmp_path).state["epoch"] in (1, 2)
    assert not list(tmp_path.glob("*.partial"))
    save(tmp_path, 3)
    assert load_checkpoint(tmp_path).state["epoch"] == 3


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    (tmp_path / "00000009.partial").mkdir()
    save(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["00000001"]


def test_a_folder_without_checkpoints_is_an_error(tmp_path):
    with pytest.raises(RunError, match="no valid checkpoint"):
        load_checkpoint(tmp_path)
