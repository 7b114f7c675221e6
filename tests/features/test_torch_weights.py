import io
import os
import pickle
import struct
import sys
import types
from collections import OrderedDict
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from typing import NamedTuple

import numpy as np
import pytest

from onsight.core.errors import ModelFileError
from onsight.core.files import sha256
from onsight.features import torch_weights
from onsight.features.published_weights import PUBLISHED, fetch
from onsight.features.torch_weights import MAGIC, PROTOCOL, as_keras, keras_names, read_pth

SYSTEM = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


class Storage(NamedTuple):
    """The numbers of one or more tensors."""

    key: str
    numbers: np.ndarray


class Tensor(NamedTuple):
    """A tensor as PyTorch saves it."""

    storage: Storage
    shape: tuple
    strides: tuple
    offset: int = 0


@contextmanager
def fake_torch():
    """Provide the names that PyTorch writes into its files, since pickle looks each of them up."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in ("FloatStorage", "LongStorage", "HalfStorage"):
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2():
        pass

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch", torch)
        patch.setitem(sys.modules, "torch._utils", utils)
        yield torch, utils


def content_of(tensors, *, magic=MAGIC, system=SYSTEM, keys=None, lengths=None):
    """Return the bytes that PyTorch before version 1.6 wrote for named tensors."""
    storages = {each.storage.key: each.storage for each in tensors.values() if isinstance(each, Tensor)}
    keys = list(storages) if keys is None else keys
    file = io.BytesIO()
    for facts in (magic, PROTOCOL, system):
        pickle.dump(facts, file, protocol=2)
    with fake_torch() as (torch, utils):
        kinds = {"f4": torch.FloatStorage, "i8": torch.LongStorage, "f2": torch.HalfStorage}

        class Writer(pickle.Pickler):
            def persistent_id(self, value):
                if not isinstance(value, Storage):
                    return None
                return "storage", kinds[value.numbers.dtype.str[1:]], value.key, "cpu", len(value.numbers), None

            def reducer_override(self, value):
                if not isinstance(value, Tensor):
                    return NotImplemented
                facts = value.storage, value.offset, value.shape, value.strides, False, OrderedDict()
                return utils._rebuild_tensor_v2, facts

        Writer(file, protocol=2).dump(OrderedDict(tensors))
    pickle.dump(keys, file, protocol=2)
    for key in keys:
        numbers = storages[key].numbers
        file.write(struct.pack("<q", (lengths or {}).get(key, len(numbers))) + numbers.tobytes())
    return file.getvalue()


def written(path, tensors, **options):
    path.write_bytes(content_of(tensors, **options))
    return path


FLOATS = Storage("94012", np.arange(24, dtype="<f4"))
COUNTER = Storage("94013", np.array([7], "<i8"))


def plain(**changes):
    """Return one 2 x 3 tensor, the first numbers of FLOATS, with changes."""
    return {"a": Tensor(FLOATS, (2, 3), (3, 1))._replace(**changes)}


def test_tensors_are_read_with_any_strides_offsets_and_shared_storages(tmp_path):
    tensors = {
        "plain": Tensor(FLOATS, (4, 6), (6, 1)),
        "turned": Tensor(FLOATS, (6, 4), (1, 6)),
        "channels last": Tensor(FLOATS, (2, 3, 2, 2), (12, 1, 6, 3)),
        "column": Tensor(FLOATS, (4,), (6,), 5),
        "one": Tensor(FLOATS, (), (), 23),
        "other": Tensor(Storage("5", np.array([2.5, -1], "<f4")), (2,), (1,)),
        "num_batches_tracked": Tensor(COUNTER, (), ()),
    }
    path = written(tmp_path / "a.pth", tensors)
    found = read_pth(path, sha256(path))
    assert list(found) == [name for name in tensors if name != "num_batches_tracked"]
    numbers = np.arange(24, dtype=np.float32)
    expected = {
        "plain": numbers.reshape(4, 6),
        "turned": numbers.reshape(4, 6).T,
        "channels last": numbers.reshape(2, 2, 2, 3).transpose(0, 3, 1, 2),
        "column": numbers[5::6],
        "one": np.float32(23),
        "other": np.array([2.5, -1], np.float32),
    }
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == np.float32
        assert found[name].base is None  # an array of its own
    assert "torch" not in sys.modules


def test_another_checksum_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    path = written(tmp_path / "a.pth", plain())
    monkeypatch.setattr(torch_weights, "arrays_of", None)
    with pytest.raises(ModelFileError, match=rf"a\.pth has the SHA-256 {sha256(path)}, but 0+ was expected"):
        read_pth(path, "0" * 64)


def test_a_file_that_is_too_large_or_absent_is_refused(tmp_path, monkeypatch):
    path = written(tmp_path / "a.pth", plain())
    monkeypatch.setattr(torch_weights, "LARGEST", 300)
    with pytest.raises(ModelFileError, match=r"bytes, more than the limit of 300"):
        read_pth(path, sha256(path))
    with pytest.raises(ModelFileError, match=r"b\.pth cannot be read: No such file"):
        read_pth(tmp_path / "b.pth", "0" * 64)


class Call:
    """An object whose unpickling calls a function."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


@pytest.mark.parametrize("place", ["tensors", "system", "tensor"])
def test_other_names_are_refused_and_nothing_runs(tmp_path, place):
    call = Call(os.system, f"touch {tmp_path / 'ran'}")
    if place == "system":
        path = written(tmp_path / "a.pth", plain(), system=SYSTEM | {"x": call})
    elif place == "tensors":
        path = written(tmp_path / "a.pth", plain() | {"x": call})
    else:
        path = written(tmp_path / "a.pth", plain(shape=(call, 3)))
    with pytest.raises(ModelFileError, match=rf"a\.pth cannot be used: it names {os.system.__module__}\.system\.$"):
        read_pth(path, sha256(path))
    assert not (tmp_path / "ran").exists()
    assert pickle.loads(pickle.dumps(call)) == 0  # it would have run
    assert (tmp_path / "ran").exists()


def test_half_precision_and_builtins_are_refused(tmp_path):
    path = written(tmp_path / "a.pth", {"a": Tensor(Storage("1", np.zeros(2, "<f2")), (2,), (1,))})
    with pytest.raises(ModelFileError, match=r"it names torch\.HalfStorage"):
        read_pth(path, sha256(path))
    path = written(tmp_path / "b.pth", plain() | {"x": Call(eval, "1")})
    with pytest.raises(ModelFileError, match=r"it names __builtin__\.eval\.$"):
        read_pth(path, sha256(path))


@pytest.mark.parametrize(
    "changes",
    [
        {"offset": 19},
        {"offset": -1},
        {"strides": (22, 1)},
        {"strides": (3, -1), "offset": 5},
        {"shape": (0, 3)},
        {"shape": (-2, 3)},
        {"shape": (10**9, 10**9), "strides": (0, 0)},
        {"shape": (5, 5), "strides": (1, 1)},
    ],
)
def test_a_tensor_must_lie_within_its_storage(tmp_path, changes):
    path = written(tmp_path / "a.pth", plain(**changes))
    with pytest.raises(ModelFileError, match="cannot be used: 'a' does not lie within its storage"):
        read_pth(path, sha256(path))


def test_what_is_not_a_number_does_not_describe_a_tensor(tmp_path):
    for changes in ({"offset": "1"}, {"shape": (2, 3.0)}, {"strides": (True, 1)}):
        path = written(tmp_path / "a.pth", plain(**changes))
        with pytest.raises(ModelFileError, match="it describes a tensor by something other than numbers"):
            read_pth(path, sha256(path))
    path = written(tmp_path / "a.pth", plain(strides=(1,)))
    with pytest.raises(ModelFileError, match="does not have the expected format"):
        read_pth(path, sha256(path))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"magic": 1}, "it does not begin as a little-endian file of PyTorch's older format"),
        ({"system": SYSTEM | {"little_endian": False}}, "it does not begin as a little-endian file"),
        ({"system": 3}, "it does not begin as a little-endian file"),
        ({"keys": []}, "it does not hold named tensors and their storages"),
        ({"lengths": {FLOATS.key: 25}}, "a storage has 25 numbers, but 24 are described"),
        ({"lengths": {FLOATS.key: -1}}, "a storage has -1 numbers, but 24 are described"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, options, words):
    path = written(tmp_path / "a.pth", plain(), **options)
    with pytest.raises(ModelFileError, match=f"cannot be used: {words}"):
        read_pth(path, sha256(path))


def test_a_truncated_or_changed_file_is_never_more_than_an_error(tmp_path):
    content = content_of(plain())
    path = tmp_path / "a.pth"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ModelFileError):
            read_pth(path, sha256(path))
    path.write_bytes(b"PK\3\4" + bytes(100))  # PyTorch's newer files are ZIP archives
    with pytest.raises(ModelFileError, match="does not have the expected format"):
        read_pth(path, sha256(path))


def test_names_and_axes_become_those_of_keras():
    names = [
        "_conv_stem.weight", "_bn0.weight", "_blocks.0._depthwise_conv.weight", "_blocks.0._bn1.running_var",
        "_blocks.12._expand_conv.weight", "_blocks.12._bn0.bias", "_blocks.12._project_conv.weight",
        "_blocks.12._bn2.running_mean", "_conv_head.weight", "_bn1.bias", "_fc.weight", "_fc.bias",
    ]  # fmt: skip
    assert list(keras_names(names).values()) == [
        "stem_conv/kernel", "stem_norm/gamma", "block0_depthwise_conv/kernel", "block0_depthwise_norm/moving_variance",
        "block12_expand_conv/kernel", "block12_expand_norm/beta", "block12_project_conv/kernel",
        "block12_project_norm/moving_mean", "head_conv/kernel", "head_norm/beta",
    ]  # fmt: skip
    array = np.zeros((8, 4, 3, 5))
    assert as_keras("_conv_stem.weight", array).shape == (3, 5, 4, 8)
    assert as_keras("_blocks.0._depthwise_conv.weight", np.zeros((8, 1, 3, 5))).shape == (3, 5, 8, 1)
    assert as_keras("_bn0.weight", np.zeros(8)).shape == (8,)


def test_a_file_of_other_tensors_is_refused_by_name(tmp_path, monkeypatch):
    from onsight.features.initial_weights import load
    from onsight.models.registry import build_model

    path = written(tmp_path / "a.pth", {"_bn0.weight": Tensor(FLOATS, (24,), (1,))})
    monkeypatch.setitem(PUBLISHED, "efficientnet_lite0", PUBLISHED["efficientnet_lite0"]._replace(hash=sha256(path)))
    with pytest.raises(ModelFileError, match=r"does not hold the weights of efficientnet_lite0: '[\w/]+' is "):
        load(build_model("efficientnet_lite0", 32, 2), str(path))


# The packages' files: the answers on three images, as another implementation of these networks gave them --------------


def pattern():
    row, column, channel = np.ogrid[:224, :224, :3]
    return ((3 * row + 5 * column + 40 * channel) % 256).astype(np.uint8)


def photo(name):
    from sklearn.datasets import load_sample_image

    from onsight.imaging.decode import resize

    return resize(np.asarray(load_sample_image(name)), 224)


@pytest.fixture(scope="module")
def pretrained():
    """Return Lite0 with the weights of the package, and the file of these weights."""
    try:
        distribution(PUBLISHED["efficientnet_lite0"].package)
    except PackageNotFoundError:
        pytest.skip("the package with the weights is not installed")
    from onsight.features.initial_weights import load
    from onsight.models.registry import build_model

    model = build_model("efficientnet_lite0", 224, 2)
    load(model, "imagenet")
    return model, fetch("efficientnet_lite0", 224)


@pytest.mark.backend
@pytest.mark.parametrize(
    ("image", "mean", "first", "best", "value"),
    [
        ("pattern", 0.12685, (0.9193, 0.7625, 0.3238), 753, 6.198),
        ("china.jpg", 0.19531, (1.4153, -0.6431, -1.8419), 698, 8.249),
        ("flower.jpg", 0.18238, (-1.5415, 1.466, -0.7498), 985, 7.021),
    ],
)
def test_the_packaged_weights_give_the_published_answers(pretrained, image, mean, first, best, value):
    from onsight.features.extract import body_of

    model, path = pretrained
    image = pattern() if image == "pattern" else photo(image)
    features = np.asarray(body_of(model).predict_on_batch(image[None]))[0]
    assert features.mean() == pytest.approx(mean, abs=1e-4)
    arrays = read_pth(path, PUBLISHED["efficientnet_lite0"].hash)
    logits = arrays["_fc.weight"] @ features + arrays["_fc.bias"]
    assert logits.shape == (1000,)
    np.testing.assert_allclose(logits[:3], first, atol=2e-3)
    assert logits.argmax() == best
    assert logits[best] == pytest.approx(value, abs=3e-3)
