"""Fixtures for all tests: no network access, a cache and a working folder of their own, and one trained toy run."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as `use_backend` does; some tests import Keras directly
# The networks of the tests are small: several threads cost more than they save, beside other test processes.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# All test processes share compiled programs, in this session and later ones.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Compiling takes most of the time of the tests; this saves a fifth.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")
BACKEND = os.environ["KERAS_BACKEND"]


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Hide the user's cache, data and runs; all tests share one cache, so that images are decoded once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONSIGHT_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("ONSIGHT_DATA", raising=False)
        patch.setenv("ONSIGHT_CIFAR_URL", "http://127.0.0.1:9")  # nothing listens there, and npm is not asked either
        patch.delenv("ONSIGHT_RUNS", raising=False)
        yield


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """Run each test in an empty folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """Allow connections to this machine only."""
    connect = socket.socket.connect

    def refuse(self, address):
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"a test tried to reach {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(autouse=True)
def _listen_to_signals():
    """Handle signals as in a terminal: a shell makes background processes, such as these tests, ignore Ctrl-C."""
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    if hasattr(signal, "SIGHUP"):
        handlers[signal.SIGHUP] = signal.SIG_DFL
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def only_training(monkeypatch):
    """Skip the .tflite file and the plots of a training: two fifths of its time, and other tests cover them."""
    from onsight.reporting import plot_style
    from onsight.training import finish

    monkeypatch.setattr(finish, "add_litert", lambda folder, images: "skipped in this test")
    monkeypatch.setattr(plot_style, "save", lambda figure, path: None)


@pytest.fixture(scope="session")
def real_data():
    """Return the folder with the real images, which ONSIGHT_TEST_DATA names; skip the test without it."""
    folder = os.environ.get("ONSIGHT_TEST_DATA")
    if not folder:
        pytest.skip("ONSIGHT_TEST_DATA does not name a folder with the real images")
    return Path(folder)


@pytest.fixture(scope="session")
def toy_spec():
    """Return a spec that trains on the toy images within two seconds."""
    from onsight import TrainSpec

    usual = {"epochs": 8, "batch_size": 16, "optimizer": "adam", "learning_rate": 2e-3, "label_smoothing": 0.0}
    return TrainSpec(data="toy", model="cnn", **usual, seed=1)


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory, toy_spec):
    """Return a finished and evaluated run. Tests only read it."""
    import onsight
    from onsight.core.progress import Reporter

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONSIGHT_RUNS", str(tmp_path_factory.mktemp("runs")))
        run = onsight.train(toy_spec, reporter=Reporter())
        onsight.evaluate(run, reporter=Reporter())
    return run


@pytest.fixture(scope="session")
def knowing_run(tmp_path_factory, toy_run):
    """Return a copy of the toy run whose model also knows the distance. Tests only read it."""
    import shutil

    import keras

    from onsight.features.prototypes import learn_likeness
    from onsight.inference.litert import add_litert
    from onsight.models.model_file import read_description, save_model
    from onsight.runs.images import open_images
    from onsight.runs.run import Run

    folder = tmp_path_factory.mktemp("knowing") / "run"
    shutil.copytree(toy_run.folder, folder)
    run = Run(folder)
    images = open_images(run, ("train",), lambda *_, **__: None)
    pixels = images.pixels.images[images.readable("train")]
    model, description = run.load_model(), read_description(run.model_folder)
    logits = model.get_layer("logits")
    likeness = learn_likeness(keras.Model(model.input, logits.input).predict(pixels, verbose=0))
    (run.model_folder / "model.tflite").unlink()
    network = keras.Model(model.input, logits.output, name=description.model)
    save_model(run.model_folder, network, run.classes, description.temperature, 0.5, likeness=likeness)
    assert add_litert(run.model_folder, pixels[:8]) is None
    return run


@pytest.fixture(scope="session")
def wide_photos(tmp_path_factory):
    """Return a folder of 90 images of 96 x 32 px in three classes. The colour is the class: the left third has it."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("wide") / "photos"
    for channel, label in enumerate(("blue", "green", "red")):
        (folder / label).mkdir(parents=True)
        for i in range(30):
            image = rng.integers(0, 90, (32, 96, 3), np.uint8)
            image[:, :32, 2 - channel] += 160
            Image.fromarray(image).save(folder / label / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def padded_run(tmp_path_factory, toy_spec, wide_photos):
    """Return a finished and evaluated run that sees the whole frames of `wide_photos`. Tests only read it."""
    import onsight
    from onsight.core.progress import Reporter

    asked = toy_spec.model_dump(exclude_unset=True) | {"data": str(wide_photos), "fit": "pad", "image_size": 32}
    asked |= {"augmentation": "none", "epochs": 30}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONSIGHT_RUNS", str(tmp_path_factory.mktemp("runs")))
        run = onsight.train(onsight.TrainSpec(**asked), reporter=Reporter())
        onsight.evaluate(run, reporter=Reporter())
    return run


@pytest.fixture
def draw_photos(tmp_path):
    """Return a function that draws photos/ with one sub-folder per class, each class in a colour of its own."""
    import numpy as np
    from PIL import Image

    def draw(labels=("blue", "green", "red"), count=24, size=(40, 30), suffix="jpg"):
        rng = np.random.default_rng(0)
        width, height = size
        for number, label in enumerate(labels):
            folder = tmp_path / "photos" / label
            folder.mkdir(parents=True)
            for i in range(count):
                image = rng.integers(0, 90, (height, width, 3), np.uint8)
                image[..., {"red": 0, "green": 1, "blue": 2}.get(label, number)] += 150
                Image.fromarray(image).save(folder / f"{i}.{suffix}")
        return tmp_path / "photos"

    return draw


@pytest.fixture
def photos(draw_photos):
    """A folder with three classes of plain colours, 24 JPEG files of 40 x 30 px in each."""
    return draw_photos()


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium with a fake camera; the tests of pages are skipped if it is not installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = Path("/usr/bin/chromium")
    if not chromium.exists():
        pytest.skip(f"there is no browser at {chromium}")
    with playwright.sync_playwright() as started:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking",
                   "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]  # fmt: skip
        opened = started.chromium.launch(executable_path=str(chromium), args=options)
        yield opened
        opened.close()


@pytest.fixture
def onsight(monkeypatch, capsys):
    """Return a function that runs the command line and returns (exit code, standard output, standard error)."""
    import sys

    from onsight.__main__ import main

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["onsight", *map(str, words)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return call
