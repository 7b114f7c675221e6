"""The code that an export's README gives away opens image files as `predict` does, without Onsight."""

import base64
import io
import re
import runpy
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from onsight.core.errors import ParityError
from onsight.core.progress import Reporter
from onsight.data.load import load_dataset
from onsight.display.page import TEMPLATES
from onsight.exporting import image_files
from onsight.exporting.export import export
from onsight.exporting.formats import READERS
from onsight.exporting.image_files import drawn, open_files
from onsight.imaging import decode
from onsight.runs.run import Run

OPEN_IMAGE = runpy.run_path(str(READERS / "open_image.py"))["open_image"]
RNG = np.random.default_rng(0)
SCENE = Image.fromarray(RNG.integers(0, 256, (15, 20, 3), np.uint8)).resize((200, 150))


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def exif(orientation):
    found = Image.Exif()
    found[0x0112] = orientation
    return found


def kinds():
    """Return {name: content} of one image in every kind of file that people have."""
    see_through = SCENE.convert("RGBA")
    see_through.putalpha(SCENE.convert("L"))
    palette = SCENE.quantize(16)
    deep = Image.fromarray(np.asarray(SCENE.convert("L")).astype(np.uint16) * 200 + 7)
    found = {f"exif {i}": saved(SCENE, "JPEG", exif=exif(i)) for i in range(1, 9)}
    found |= {f"{kind} {i}": saved(SCENE, kind, exif=exif(i)) for kind in ("PNG", "TIFF", "WEBP") for i in range(2, 9)}
    return found | {
        "4:4:4": saved(SCENE, "JPEG", subsampling=0),
        "progressive": saved(SCENE, "JPEG", progressive=True),
        "grey": saved(SCENE.convert("L"), "JPEG"),
        "cmyk": saved(SCENE.convert("CMYK"), "JPEG"),
        "mpo": saved(SCENE, "MPO", save_all=True, append_images=[SCENE.rotate(90)]),
        "wide": saved(SCENE.resize((400, 30)), "JPEG"),
        "tall": saved(SCENE.resize((30, 400)), "PNG"),
        "small": saved(SCENE.resize((9, 7)), "PNG"),
        "1 bit": saved(SCENE.convert("1"), "PNG"),
        "16 bits": saved(deep, "PNG"),
        "float": saved(SCENE.convert("F").point(lambda value: value / 255), "TIFF"),
        "alpha": saved(see_through, "PNG"),
        "grey and alpha": saved(see_through.convert("LA"), "PNG"),
        "palette": saved(palette, "PNG"),
        "palette, one clear": saved(palette, "GIF", transparency=3),
        "animation": saved(palette, "GIF", save_all=True, append_images=[palette.rotate(90)]),
        "webp alpha": saved(see_through, "WEBP", quality=70),
        "bmp": saved(SCENE, "BMP"),
    }


@pytest.mark.parametrize("fit", ["cut", "pad"])
@pytest.mark.parametrize("size", [8, 32, 150, 224])
def test_the_code_of_the_readme_sees_the_pixels_of_predict(size, fit):
    for name, data in (kinds() | drawn()).items():
        found = OPEN_IMAGE(io.BytesIO(data), size, fit)
        assert found.dtype == np.uint8
        assert np.array_equal(found, decode.load(data, size, fit)), name


def test_the_code_of_the_readme_reduces_a_jpeg_of_more_than_25_million_pixels_too():
    data = saved(SCENE.resize((5201, 4999)), "JPEG")
    assert np.array_equal(OPEN_IMAGE(io.BytesIO(data), 224, "cut"), decode.load(data, 224))


def test_the_drawn_files_differ_by_kind_and_are_small():
    files = drawn()
    assert list(files) == sorted(files)
    assert sum(map(len, files.values())) < 60_000
    assert decode.header(files["sideways.jpg"])[2] == 6
    assert len({decode.load(data, 32).tobytes() for data in files.values()}) == len(files)


@pytest.fixture
def notes():
    """A reporter, and the notes that it has got."""
    told = []
    show = Reporter()
    show.note = lambda *words: told.append(" ".join(words))
    return show, told


def test_the_runs_own_files_are_opened_by_that_code(wide_photos, notes, monkeypatch, tmp_path):
    dataset, (show, told) = load_dataset(wide_photos), notes
    found = open_files(dataset, np.arange(90), 32, "pad", show)
    assert np.array_equal(found, [decode.load(data, 32, "pad") for data in drawn().values()])
    assert told == []
    shutil.copytree(READERS, tmp_path / "readers")
    code = (tmp_path / "readers" / "open_image.py").read_text()
    (tmp_path / "readers" / "open_image.py").write_text(code.replace("BILINEAR", "NEAREST"))
    monkeypatch.setattr(image_files, "READERS", tmp_path / "readers")
    with pytest.raises(ParityError, match=r"and 35 more otherwise than predict, of 38 image files"):
        open_files(dataset, np.arange(90), 32, "pad", show)
    monkeypatch.setattr(image_files, "drawn", dict)
    with pytest.raises(ParityError, match=r"and 29 more otherwise than predict, of 32 image files"):
        open_files(dataset, np.arange(90), 32, "pad", show)


def test_a_few_odd_files_among_the_runs_own_are_told(wide_photos, notes, tmp_path):
    """Pillow alone reads 16-bit PNG files otherwise if one colour of them stands for transparent pixels."""
    shutil.copytree(wide_photos, tmp_path / "photos")
    paths = sorted((tmp_path / "photos").rglob("*.png"))
    names = [path.relative_to(tmp_path / "photos").as_posix() for path in paths]
    show, told = notes
    for odd in (1, 4):
        for number, path in enumerate(paths[:odd]):
            deep = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000 + number)
            deep.save(path, transparency=1000 + number)
        dataset = load_dataset(tmp_path / "photos")
        chosen = np.array([dataset.names.index(name) for name in names[:32]])
        if odd == 1:
            open_files(dataset, chosen, 32, "cut", show)
            assert told == [f"other pixels the code of the README opens '{names[0]}' otherwise than predict"]
    with pytest.raises(ParityError, match="Save images as JPEG or PNG of 8 bits"):
        open_files(dataset, chosen, 32, "cut", show)


@pytest.fixture(scope="module")
def exported(padded_run, tmp_path_factory):
    """The export/ of a run that sees whole frames. Tests only read it."""
    folder = tmp_path_factory.mktemp("exported") / "run"
    shutil.copytree(padded_run.folder, folder)
    export(Run(folder), ["litert"], reporter=Reporter())
    return folder / "export"


def blocks(folder, language):
    section = (folder / "README.md").read_text("utf-8").partition("## From an image file")[2].partition("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


@pytest.mark.backend
def test_the_vectors_lead_from_file_to_pixels_to_answer(exported):
    files = sorted((exported / "vectors" / "files").iterdir())
    assert [file.name for file in files] == list(drawn())
    pixels, answers = (np.load(exported / "vectors" / f"{name}.npy") for name in ("pictures", "probabilities"))
    assert np.array_equal(pixels[-len(files) :], [decode.load(file, 32, "pad") for file in files])
    answer = runpy.run_path(str(READERS / "read_litert.py"))["open_model"](exported / "model.tflite")
    found = answer(np.stack([OPEN_IMAGE(file, 32, "pad") for file in files]))
    assert np.abs(found - answers[-len(files) :]).max() <= 1e-5


def test_the_python_code_of_the_readme_runs_without_onsight(exported):
    (code,) = blocks(exported, "python")
    words = [sys.executable, "-I", "-c", "import sys\nsys.modules['onsight'] = None\n" + code]
    done = subprocess.run(words, capture_output=True, text=True, cwd=exported)
    assert done.returncode == 0, done.stderr
    assert 'open_image("vectors/files/sideways.jpg", 32, "pad")' in code


def test_the_javascript_of_the_readme_gives_the_same_pixels_in_a_browser(exported, browser, tmp_path):
    """Chromium rounds a grey of 16 bits and transparent WebP otherwise, by 1 of 255. It reads no TIFF."""
    (code,) = blocks(exported, "js")
    assert (TEMPLATES / "open_image.js").read_text("utf-8").strip() in code
    (tmp_path / "page.html").write_text(f"<!doctype html><script>{code}</script>", "utf-8")
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    files = {file.name: file.read_bytes() for file in (exported / "vectors" / "files").iterdir()}
    for name, data in (files | kinds()).items():
        if data.startswith((b"II*", b"MM")):
            continue
        ask = "async (text) => Array.from(await openImage(await (await fetch(`data:;base64,${text}`)).blob()))"
        found = np.int16(page.evaluate(ask, base64.b64encode(data).decode())).reshape(32, 32, 3)
        apart = np.abs(found - decode.load(data, 32, "pad")).max()
        assert apart <= (name in ("16 bits", "webp alpha")), name
    page.close()
