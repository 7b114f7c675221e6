import re
import zipfile

import numpy as np
import pytest
from PIL import Image

import onsight
from onsight.core.backend import to_numpy
from onsight.core.errors import DataError, ImageError, SpecError
from onsight.core.progress import Reporter
from onsight.data.load import load_dataset
from onsight.data.pixel_cache import load_pixels
from onsight.inference.embed import check_output, write_embeddings
from onsight.inference.similar_page import render

QUIET = Reporter()
pytestmark = pytest.mark.backend


@pytest.fixture
def flat(tmp_path, photos):
    """Return a folder of images without class folders, one of them broken."""
    folder = tmp_path / "flat"
    folder.mkdir()
    for path in sorted(photos.glob("*/*"))[::6]:
        (folder / f"{path.parent.name}-{path.name}").write_bytes(path.read_bytes())
    (folder / "broken.jpg").write_bytes(b"nothing")
    return folder


def test_features_are_the_inputs_of_the_head(toy_run, photos, tmp_path):
    import keras

    out = tmp_path / "f.npz"
    found = onsight.embed(toy_run, photos, out=out, reporter=QUIET)
    dataset = load_dataset(photos)
    assert found.names == dataset.names
    assert found.classes == ("blue", "green", "red")
    np.testing.assert_array_equal(found.labels, dataset.labels)
    images = load_pixels(dataset, 32).images
    model = toy_run.load_model()
    body = keras.Model(model.input, model.get_layer("logits").input)
    np.testing.assert_allclose(found.features, to_numpy(body(images[:])), rtol=1e-3, atol=1e-4)
    with np.load(out, allow_pickle=False) as file:
        assert set(file) == {"names", "features", "labels", "classes"}
        np.testing.assert_array_equal(file["features"], found.features)
        assert tuple(file["names"].tolist()) == found.names


def test_a_folder_without_class_folders_has_no_labels(toy_run, flat, tmp_path):
    out = tmp_path / "f.csv"
    found = onsight.embed(toy_run, flat, out=out, reporter=QUIET)
    assert (len(found.names), found.skipped, found.classes) == (12, 1, ())
    assert set(found.labels.tolist()) == {-1}
    lines = out.read_text().splitlines()
    assert lines[0].startswith("path,label,f0,f1,")
    assert len(lines) == 13
    assert len(lines[1].split(",")) == 2 + found.features.shape[1]
    with pytest.raises(DataError, match=r"broken\.jpg cannot be read"):
        onsight.embed(toy_run, str(flat / "broken.jpg"), reporter=QUIET)


def test_similar_images_are_of_the_same_colour_and_never_the_image_itself(toy_run, photos):
    query = next(iter(sorted((photos / "red").iterdir())))
    found = onsight.similar(toy_run, [query], photos, top=5, reporter=QUIET)
    assert len(found) == 5
    assert f"red/{query.name}" not in {each.name for each in found}
    values = [each.similarity for each in found]
    assert values == sorted(values, reverse=True)
    assert max(values) <= 1 + 1e-5
    everything = onsight.similar(toy_run, [query, query], photos, top=1000, reporter=QUIET)
    assert len(everything) == 71  # one query, however often it is named
    (photos / "red" / "twin.jpg").write_bytes(query.read_bytes())
    (twin,) = onsight.similar(toy_run, [query], photos, top=1, reporter=QUIET)
    assert (twin.name, round(twin.similarity, 4)) == ("red/twin.jpg", 1)


def test_every_readable_image_counts_also_beside_class_folders_and_in_a_zip(toy_run, photos, tmp_path):
    (photos / "loose.jpg").write_bytes((photos / "red" / "0.jpg").read_bytes())
    found = onsight.embed(toy_run, photos, reporter=QUIET)
    assert len(found.names) == 73
    assert found.labels[found.names.index("loose.jpg")] == -1
    with zipfile.ZipFile(tmp_path / "flat.zip", "w") as file:
        for number in range(3):
            file.write(photos / "red" / f"{number}.jpg", f"{number}.jpg")
    notes = []
    show = Reporter()
    show.note = lambda label, text: notes.append(text)
    found = onsight.embed(toy_run, tmp_path / "flat.zip", reporter=show)
    assert found.names == ("0.jpg", "1.jpg", "2.jpg")
    assert found.labels.tolist() == [-1, -1, -1]
    assert [text for text in notes if text.startswith("no image has a label: The zip 'flat' holds its images directly")]


def test_the_image_itself_is_left_out_also_in_a_folder_of_one_folder(toy_run, photos, tmp_path):
    (tmp_path / "outer").mkdir()
    photos.rename(tmp_path / "outer" / "photos")
    query = tmp_path / "outer" / "photos" / "red" / "0.jpg"
    found = onsight.similar(toy_run, [query], tmp_path / "outer", top=1000, reporter=QUIET)
    assert len(found) == 71
    assert "photos/red/0.jpg" not in {each.name for each in found}


@pytest.mark.parametrize("kind", ["folder", "zip", "named"])
def test_the_page_shows_each_image(kind, toy_run, photos, tmp_path):
    query, data = photos / "red" / "0.jpg", {"folder": photos, "zip": tmp_path / "photos.zip", "named": "toy"}[kind]
    if kind == "zip":
        with zipfile.ZipFile(data, "w") as file:
            for path in sorted(photos.glob("*/*")):
                file.write(path, path.relative_to(photos))
    found = onsight.similar(toy_run, [query], data, top=5, reporter=QUIET)
    page = render(found, data, "toy")
    assert page.count("data:image/webp;base64,") == 6
    assert 'class="none"' not in page


def test_the_page_names_the_file_before_its_folder_because_long_paths_are_cut(toy_run, photos):
    query = photos / "red" / "0.jpg"
    assert len(str(query)) > 40  # the heading would end before the file's name
    page = render(onsight.similar(toy_run, [query], photos, top=1, reporter=QUIET), photos, "toy")
    assert f'<h2 title="{query}"><bdi>0.jpg</bdi></h2>' in page
    assert re.search(r"<bdi>\d+\.jpg</bdi><bdi>red</bdi></figcaption>", page)


def test_the_page_fits_a_phone(toy_run, photos, browser, tmp_path):
    query = photos / "red" / "0.jpg"
    query = query.rename(photos / "red" / ("long-" * 40 + ".jpg"))
    (tmp_path / "page.html").write_text(
        render(onsight.similar(toy_run, [query], photos, reporter=QUIET), photos, "toy")
    )
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto((tmp_path / "page.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.locator("figure img").count() == 12


def test_the_page_escapes_names_and_asks_for_nothing(toy_run, tmp_path):
    folder = tmp_path / "<b>photos"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(np.full((40, 40, 3), 60 * number, np.uint8)).save(folder / f"<script>{number}.png")
    found = onsight.similar(toy_run, [folder / "<script>0.png"], folder, reporter=QUIET)
    page = render(found, folder, "<i>")
    assert "<script" not in page
    assert "<i>" not in page
    assert page.count("data:image/webp;base64,") == 3
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", page)


def test_what_cannot_work_is_refused(toy_run, flat, tmp_path, monkeypatch):
    with pytest.raises(SpecError, match="no published weights for cnn"):
        onsight.embed("cnn", flat, reporter=QUIET)
    with pytest.raises(onsight.RunError, match="There is no run at nothing"):
        onsight.embed("nothing", flat, reporter=QUIET)
    with pytest.raises(SpecError, match=r"f\.txt has no known suffix; expected one of \.npz"):
        onsight.embed(toy_run, flat, out=tmp_path / "f.txt", reporter=QUIET)
    monkeypatch.setattr("onsight.inference.embed.find_spec", lambda name: None)
    with pytest.raises(SpecError, match="needs pyarrow"):
        check_output(tmp_path / "f.parquet")
    with pytest.raises(SpecError, match="--top 0 shows nothing"):
        onsight.similar(toy_run, [flat], flat, top=0, reporter=QUIET)
    with pytest.raises(ImageError, match=r"broken\.jpg cannot be read"):
        onsight.similar(toy_run, [flat / "broken.jpg"], flat, reporter=QUIET)


def test_a_parquet_file_has_a_row_per_image(toy_run, flat, tmp_path):
    pytest.importorskip("pyarrow")
    from pyarrow import parquet

    found = onsight.embed(toy_run, flat, reporter=QUIET)
    write_embeddings(tmp_path / "f.parquet", found)
    table = parquet.read_table(tmp_path / "f.parquet")
    assert table.column_names[:3] == ["path", "label", "f0"]
    assert table.num_rows == 12
