"""The page of `export RUN web` in a real browser: it opens from disk, answers as Python does, and loads nothing."""

import base64
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onsight.core.errors import ExportError
from onsight.exporting import export, write_web
from onsight.exporting.formats import check_formats
from onsight.imaging import decode
from onsight.inference.engines import LitertEngine
from onsight.inference.parity import edge_images
from onsight.models.litert_file import fix_batch
from onsight.models.model_file import read_description

HOSTILE = ["</script><script>window.hacked=1</script>", "<img src=x onerror=window.hacked=1>", "\u202ecat{{7*7}}"]


@pytest.fixture(scope="module")
def litert():
    if not (write_web.LITERT / "package.json").exists():
        pytest.skip("LiteRT.js is not installed: make web")


def write_page(run, path, **facts):
    description = read_description(run.model_folder)
    known = {"name": run.name, "model": description.model, "size": description.image_size, "fit": description.fit,
             "grey": 128, "classes": description.classes, "threshold": None,
             "distance_threshold": description.distance_threshold, "precision": "float32"}  # fmt: skip
    path.write_text(write_web.page(known | facts, fix_batch((run.model_folder / "model.tflite").read_bytes())), "utf-8")
    return path


@pytest.fixture(scope="module")
def page(litert, browser, toy_run, tmp_path_factory):
    """The page of the toy run, opened in a browser. Tests leave it unchanged."""
    path = write_page(toy_run, tmp_path_factory.mktemp("web") / "model.html")
    yield from opened(browser, path)


@pytest.fixture(scope="module")
def padding_page(litert, browser, padded_run, tmp_path_factory):
    """The page of a run that sees whole frames, opened in a browser. Tests leave it unchanged."""
    path = write_page(padded_run, tmp_path_factory.mktemp("web") / "model.html")
    yield from opened(browser, path)


@pytest.fixture(params=["cut", "pad"])
def fitted(request):
    """Each fit, and the page of a run with it."""
    return request.param, request.getfixturevalue("page" if request.param == "cut" else "padding_page")


def opened(browser, path):
    context = browser.new_context(permissions=["camera"])
    page, events = context.new_page(), []
    page.on("console", lambda message: events.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: events.append(f"error: {error}"))
    page.on("request", lambda each: events.append(f"request: {each.url[:100]}") if each.url != path.as_uri() else None)
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-state]", timeout=60_000)
    assert page.get_attribute("body", "data-state") == "ready", page.inner_text("#told")
    yield page
    context.close()
    assert [each for each in events if not each.startswith("request: blob:")] == []


ASK = """async ([text, width, height]) => {
    const rgb = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const rgba = new Uint8ClampedArray(width * height * 4).fill(255);
    for (let i = 0; i < width * height; i++) for (let c = 0; c < 3; c++) rgba[4 * i + c] = rgb[3 * i + c];
    const prepared = onsight.prepare(rgba, width, height, onsight.facts);
    return [Array.from(prepared), Array.from((await onsight.answer(prepared)).probabilities)];
}"""


def ask(page, image):
    """Return the prepared pixels of an image and its probabilities, both computed by the page."""
    height, width = image.shape[:2]
    prepared, answer = page.evaluate(ASK, [base64.b64encode(image.tobytes()).decode(), width, height])
    size = round((len(prepared) / 3) ** 0.5)
    return np.uint8(prepared).reshape(size, size, 3), np.float32(answer)


def test_an_int8_page_answers_as_the_int8_file(litert, browser, toy_run, tmp_path):
    """Its input is uint8 with a scale, and LiteRT.js must take it as plain pixels."""
    from ai_edge_litert.interpreter import Interpreter

    from onsight.core.silence import without_logs
    from onsight.exporting.quantize import quantized

    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    with without_logs():
        content = quantized((toy_run.model_folder / "model.tflite").read_bytes(), "int8", images)
    description = read_description(toy_run.model_folder)
    facts = {"name": "toy", "model": "cnn", "size": 32, "fit": "cut", "grey": 128, "classes": description.classes,
             "threshold": None, "distance_threshold": None, "precision": "int8"}  # fmt: skip
    path = tmp_path / "model-int8.html"
    path.write_text(write_web.page(facts, fix_batch(content)), "utf-8")
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    for page in opened(browser, path):
        for image in images[:5]:
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
            interpreter.invoke()
            expected = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
            np.testing.assert_allclose(ask(page, image)[1], expected, atol=0.05)


def test_prepared_pixels_equal_those_of_python_exactly(fitted):
    fit, page = fitted
    rng = np.random.default_rng(0)
    for height, width in [
        (32, 32),
        (32, 50),
        (31, 33),
        (1, 1),
        (1, 40),
        (8, 8),
        (33, 65),
        (97, 64),
        (240, 320),
        (500, 333),
        (1, 5000),
        (5000, 1),
        (22, 40),
        (16, 32),
        (32, 7),
    ]:
        for image in (
            rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
            np.full((height, width, 3), 255, np.uint8),
        ):
            found, _ = ask(page, image)
            np.testing.assert_array_equal(found, decode.resize(image, 32, fit))


def test_answers_for_200_images_equal_those_of_python(fitted, toy_run, padded_run):
    fit, page = fitted
    run = toy_run if fit == "cut" else padded_run
    engine = LitertEngine((run.model_folder / "model.tflite").read_bytes(), read_description(run.model_folder))
    rng = np.random.default_rng(0)
    images = [*edge_images(32)]
    while len(images) < 200:
        height, width = rng.integers(20, 60, 2)
        image = rng.integers(0, 256, (height, width, 3))
        images.append((image * rng.uniform(0, 1, 3)).astype(np.uint8))
    expected = engine.probabilities(np.stack([decode.resize(image, 32, fit) for image in images]))
    found = np.stack([ask(page, image)[1] for image in images])
    assert np.abs(found - expected).max() < 1e-3
    assert len(np.unique(expected.argmax(axis=1))) == 3
    np.testing.assert_array_equal(found.argmax(axis=1), expected.argmax(axis=1))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_answers_for_200_photos_equal_those_of_python(litert, browser, toy_run, real_data, tmp_path):
    path = write_page(toy_run, tmp_path / "model.html")
    engine = LitertEngine((toy_run.model_folder / "model.tflite").read_bytes(), read_description(toy_run.model_folder))
    files = sorted((real_data / "hymenoptera").rglob("*.jpg"))[:200]
    for page in opened(browser, path):
        for file in files:
            image = decode.decode(file.read_bytes())
            prepared, answer = ask(page, image)
            np.testing.assert_array_equal(prepared, decode.resize(image, 32))
            expected = engine.probabilities(prepared[None])[0]
            assert np.abs(answer - expected).max() < 1e-3
            assert answer.argmax() == expected.argmax()


def test_an_image_file_is_classified_and_another_file_is_refused(page, toy_run, tmp_path):
    red = np.zeros((40, 60, 3), np.uint8) + np.array([220, 30, 30], np.uint8)
    Image.fromarray(red).save(tmp_path / "red.png")
    page.set_input_files("#file", str(tmp_path / "red.png"))
    page.wait_for_selector("#bars li")
    assert page.inner_text("#verdict") == "red"
    assert page.locator("#bars li").count() == 3
    assert "60 × 40 pixels, seen as 32 × 32" in page.inner_text("#told")
    (tmp_path / "none.png").write_bytes(b"nothing")
    page.set_input_files("#file", str(tmp_path / "none.png"))
    page.wait_for_selector("#told:has-text('cannot be read as an image')")


def test_the_page_says_and_shows_what_the_model_sees(fitted, wide_photos):
    fit, page = fitted
    file = wide_photos / "red" / "0.png"
    page.set_input_files("#file", str(file))
    page.wait_for_selector("#told:has-text('96 × 32 pixels, seen as 32 × 32')")
    width, height, drawn = page.evaluate("""() => {
        const { width, height } = document.getElementById("shown");
        const rgba = document.getElementById("shown").getContext("2d").getImageData(0, 0, width, height).data;
        return [width, height, Array.from(onsight.prepare(rgba, width, height, onsight.facts))];
    }""")
    assert (width, height) == ((32, 32) if fit == "cut" else (96, 32))
    np.testing.assert_array_equal(np.uint8(drawn).reshape(32, 32, 3), decode.load(file, 32, fit))
    said = page.inner_text("#seen")
    assert said == (
        "The model sees only the centre square of an image."
        if fit == "cut"
        else "The model sees the whole image, on a grey square."
    )
    if fit == "pad":
        assert page.inner_text("#verdict") == "red"


def test_a_long_class_name_is_cut_with_an_ellipsis_and_widens_no_page(litert, browser, toy_run, tmp_path):
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "black.png")
    path = write_page(toy_run, tmp_path / "model.html", classes=["x" * 120] * 3)
    for page in opened(browser, path):
        page.set_viewport_size({"width": 390, "height": 844})
        page.set_input_files("#file", str(tmp_path / "black.png"))
        name = page.locator("#verdict span")
        name.wait_for()
        assert name.get_attribute("title") == "x" * 120
        assert name.evaluate("e => getComputedStyle(e).textOverflow") == "ellipsis"
        assert name.bounding_box()["height"] < 50  # one line
        assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_an_image_given_before_the_model_is_loaded_waits_for_it(litert, browser, toy_run, tmp_path):
    path = write_page(toy_run, tmp_path / "model.html")
    red = np.zeros((40, 60, 3), np.uint8) + np.array([220, 30, 30], np.uint8)
    Image.fromarray(red).save(tmp_path / "red.png")
    page = browser.new_page()
    page.add_init_script("""
        const whole = Response.prototype.arrayBuffer, held = new Promise((resolve) => (self.release = resolve));
        Response.prototype.arrayBuffer = async function () {
            await held;
            return whole.call(this);
        };
    """)
    page.goto(path.as_uri())
    page.wait_for_selector("#about:not(:empty)")  # the page takes files now, but the model is not unpacked yet
    page.set_input_files("#file", str(tmp_path / "red.png"))
    page.wait_for_selector("#shown:not([hidden])")
    page.evaluate("release()")
    page.wait_for_selector("#bars li", timeout=20_000)
    assert page.inner_text("#verdict") == "red"
    page.close()


def test_a_camera_that_was_started_twice_stops(page):
    page.evaluate("""() => {
        self.given = [];
        const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        navigator.mediaDevices.getUserMedia = async (wanted) => {
            const stream = await ask(wanted);
            self.given.push(stream);
            return stream;
        };
        const button = document.getElementById("camera");
        button.click();
        button.click();
    }""")
    page.wait_for_selector("#rate:has-text('frames/s')", timeout=20_000)
    page.wait_for_function("self.given.length === 2")
    page.click("#camera")
    ended = "self.given.map((stream) => stream.getTracks().every((track) => track.readyState === 'ended'))"
    assert page.evaluate(ended) == [True, True]


def test_the_camera_is_classified_live(page):
    page.click("#camera")
    page.wait_for_selector("#rate:has-text('frames/s')", timeout=20_000)
    page.wait_for_timeout(700)
    assert re.match(r"[1-9]\d* frames/s · [\d.]+ ms each", page.inner_text("#rate"))
    page.click("#camera")
    assert page.is_hidden("#video")


def test_hostile_names_stay_text_and_an_unsure_answer_is_marked(litert, browser, toy_run, tmp_path):
    path = write_page(
        toy_run, tmp_path / "model.html", classes=HOSTILE, threshold=1.0, name=HOSTILE[0], model=HOSTILE[1]
    )
    for page in opened(browser, path):
        Image.fromarray(edge_images(32)[-1]).save(tmp_path / "noise.png")
        page.set_input_files("#file", str(tmp_path / "noise.png"))
        page.wait_for_selector("#bars li")
        shown = [page.locator("#bars li span").nth(i).text_content() for i in (0, 2, 4)]
        assert sorted(shown) == sorted(HOSTILE)
        assert page.inner_text("#verdict small") == "unsure:"
        top = [page.locator("#bars li span").nth(i).text_content() for i in (0, 2)]
        assert page.locator("#verdict span").text_content() == " or ".join(top)
        assert page.evaluate("window.hacked") is None
        assert page.locator("#bars img, #verdict img").count() == 0


def test_an_image_unlike_the_training_images_is_unsure(litert, browser, knowing_run, tmp_path):
    threshold = read_description(knowing_run.model_folder).distance_threshold
    engine = LitertEngine(
        (knowing_run.model_folder / "model.tflite").read_bytes(), read_description(knowing_run.model_folder)
    )
    images = edge_images(32)
    distances = engine.answer(images).distances
    assert distances.max() > threshold
    Image.fromarray(images[distances.argmax()]).save(tmp_path / "far.png")
    for far, said in ((threshold, "unsure:\nunlike anything it was trained on"), (2.0, None)):
        path = write_page(knowing_run, tmp_path / "model.html", distance_threshold=far, threshold=1.1 if said else 0.0)
        for page in opened(browser, path):
            page.set_input_files("#file", str(tmp_path / "far.png"))
            page.wait_for_selector("#bars li")
            shown = page.locator("#verdict span").text_content()
            assert shown == "unlike anything it was trained on" if said else shown in knowing_run.classes
            assert page.locator("#verdict small").count() == (1 if said else 0)


def test_export_writes_the_page_and_check_reads_it(litert, toy_run, tmp_path):
    import shutil

    from onsight.core.progress import Reporter
    from onsight.runs.run import Run

    shutil.copytree(toy_run.folder, tmp_path / "run")
    run = Run(tmp_path / "run")
    (row,) = export.export(run, ["web"], reporter=Reporter())
    assert (row["file"], row["agreement"]) == ("model.html", 1)
    assert row["max_difference"] <= 1e-5
    text = (run.folder / "export" / "model.html").read_text("utf-8")
    assert len(text) < 8_000_000
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)
    assert "Apache License, Version 2.0" in text
    assert json.loads(re.search(r'id="facts">(.*?)</script>', text)[1])["classes"] == list(run.classes)
    assert dict(export.check_export(run, Reporter()))["model.html"] <= 1e-5
    facts = json.loads(re.search(r'id="facts">(.*?)</script>', text)[1])
    assert (facts["fit"], facts["grey"]) == ("cut", 128)
    export.export(run, ["web"], precision="int8", max_drop=100, reporter=Reporter())
    assert {"model.html", "model-int8.html"} <= {path.name for path in (run.folder / "export").iterdir()}


def test_missing_or_unknown_litert_js_raises_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(write_web, "LITERT", tmp_path)
    with pytest.raises(ExportError, match=r"web needs LiteRT\.js.*install it with npm: make web"):
        check_formats(["web"], "float32")
    (tmp_path / "index.js").write_text("export {\n};\n")
    with pytest.raises(ExportError, match="another version of LiteRT"):
        write_web.as_module((tmp_path / "index.js").read_text())


def test_npm_packages_are_pinned_by_checksum_and_have_no_url():
    lock = json.loads((Path(__file__).parents[2] / "web" / "package-lock.json").read_text())
    packages = {name: each for name, each in lock["packages"].items() if name}
    assert packages["node_modules/@litertjs/core"]["version"] == "2.5.3"
    for each in packages.values():
        assert each["integrity"].startswith("sha512-")
        assert "resolved" not in each
        assert each["license"] == ("MPL-2.0" if each.get("dev") else "Apache-2.0")  # the tests' axe-core is not shipped


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("data", ["hymenoptera", "cifar10-folders"])
def test_real_images_in_every_format(litert, browser, real_data, data, tmp_path, monkeypatch):
    """Train briefly, export all formats, and run each file in its own runtime, in a process without Onsight."""
    import onsight
    from onsight.core.progress import Reporter
    from onsight.exporting.formats import FORMATS

    monkeypatch.setenv("ONSIGHT_RUNS", str(tmp_path / "runs"))
    spec = onsight.TrainSpec(data=real_data / data, model="cnn_compact", epochs=1, augmentation="flip")
    run = onsight.train(spec, reporter=Reporter())
    rows = export.export(run, list(FORMATS), reporter=Reporter())
    assert {row["format"] for row in rows} == set(FORMATS)
    for row in rows:
        assert row["agreement"] == 1, row
        assert row["max_difference"] <= 1e-5, row
    folder = run.folder / "export"
    scripts = dict(re.findall(r"^## (\S+)\n.*?```python\n(.*?)```", (folder / "README.md").read_text(), re.S | re.M))
    assert set(scripts) == {row["file"] for row in rows}
    for name, script in scripts.items():
        words = [sys.executable, "-I", "-c", "import sys\nsys.modules['onsight'] = None\n" + script]
        done = subprocess.run(words, capture_output=True, text=True, cwd=folder)
        assert done.returncode == 0, (name, done.stderr)
    images, expected = (np.load(folder / "vectors" / f"{name}.npy") for name in ("pictures", "probabilities"))
    for page in opened(browser, folder / "model.html"):
        for image, answer in zip(images, expected, strict=True):
            found = ask(page, image)[1]
            assert np.abs(found - answer).max() < 1e-3
            assert answer[found.argmax()] > answer.max() - 1e-5
