"""The report in a real browser: it opens from disk, its cells open, it requests nothing and runs no foreign script."""

import io
import json
import math

import numpy as np
import pytest

from edits import metrics_of
from onsight.evaluation.slices import measure
from onsight.evaluation.thumbnails import write_thumbnails
from onsight.metrics.predictions_csv import write_predictions
from onsight.reporting.report import report

WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
HOSTILE = (
    "<script>window.hacked=1</script>", "\"'><img src=https://evil.example/x onerror=window.hacked=1>",
    "</script><script>window.hacked=1</script>", "<!--<script>", "{{ 7 * 7 }}", "javascript:window.hacked=1",
    "</style><svg/onload=window.hacked=1>", "\u202edrow", "&lt;b&gt;", "]]>", "\u2028alert", "${window.hacked=1}",
)  # fmt: skip


def make_run(folder, classes, n=400, name="test/{label}/{i}.jpg"):
    """Write a run like `train` and `evaluate` do, with images of coloured squares, and return its report."""
    rng = np.random.default_rng(0)
    test = folder / "evaluations" / "test"
    test.mkdir(parents=True)
    (folder / "model").mkdir()
    write = lambda path, value: path.write_text(json.dumps(value))  # noqa: E731
    count = len(classes)
    counts = {part: dict.fromkeys(classes, 40) for part in ("train", "validation", "test")}
    write(folder / "spec.json", {"schema": 1, "asked": {"data": "photos"}, "spec": {"data": "photos", "model": "cnn"}})
    facts = {"name": "photos", "classes": list(classes), "provenance": classes[0], "counts": counts}
    write(folder / "dataset.json", facts)
    layers = [{"name": "logits", "type": "Dense", "output_shape": [count], "parameters": 9, "multiply_adds": 9}]
    about = {"model": "cnn", "image_size": 32, "temperature": 1.2, "threshold": 0.5, "parameters": 9}
    write(folder / "model" / "model.json", about | {"layers": layers})
    labels = np.arange(n) % count
    scores = rng.dirichlet(np.ones(count) * 0.3, n).astype(np.float32)
    scores[: n // 2] = 0.1 / count + 0.9 * np.eye(count)[labels[: n // 2]]
    names = [name.format(label=classes[labels[i]], i=i) for i in range(n)]
    write(test / "metrics.json", metrics_of(labels, scores, classes))
    write_predictions(test / "predictions.csv", names, labels, scores, classes)
    images = rng.integers(0, 256, (n, 8, 8, 3), np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    write_thumbnails(test, lambda i, _: images[i], 32, np.arange(n), labels, scores, names)
    suspects = [
        {"path": names[i], "part": "test", "label": classes[labels[i]], "suggested": classes[labels[i] - 1],
         "probability_of_label": 0.1, "probability_of_suggested": 0.8}
        for i in range(count)
    ]  # fmt: skip
    write(test / "label_errors.json", {"method": "confident joint", "checked": n, "suspects": suspects})
    columns = {"class": [classes[i] for i in labels], "camera": names}
    write(test / "slices.json", measure(scores.argmax(axis=1) == labels, columns))
    return report(folder)


@pytest.fixture
def visit(browser):
    """Return a function that opens a page. No page may log, raise, open a dialog or request anything else."""
    contexts, events = [], []

    def visit(path, size=WIDE, **settings):
        context = browser.new_context(viewport=size, **settings)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: events.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: events.append(f"error: {error}"))
        page.on("dialog", lambda dialog: events.append(f"dialog: {dialog.message}"))
        page.on(
            "request",
            lambda each: (
                None if each.url.startswith(("data:", path.as_uri())) else events.append(f"requested: {each.url}")
            ),
        )
        page.goto(path.as_uri())
        return page

    yield visit
    for context in contexts:
        context.close()
    assert events == []


@pytest.fixture(scope="module")
def animals(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("page") / "photos-cnn-0001", ["cat", "dog", "emu"])


def shown(page):
    return page.locator("#panel").inner_text().replace("\xa0", " ")


def test_cells_open_by_mouse(visit, animals):
    page = visit(animals)
    cell = page.get_by_role("button", name="emu, predicted cat:")
    cell.click()
    assert "emu taken for cat" in shown(page)
    assert cell.get_attribute("aria-expanded") == "true"
    assert page.locator("[aria-expanded=true]").count() == 1
    n = int(cell.inner_text())
    assert page.locator(".tiles button").count() == min(30, n)
    page.locator(".tiles button").nth(1).click()
    caption = page.locator(".closer").inner_text()
    assert "confidence " in caption
    assert "test/emu/" in caption
    page.get_by_role("button", name="Close").click()
    assert "Choose a cell" in shown(page)
    assert page.evaluate("document.activeElement.dataset.cell") == "2,0"


def test_tiles_show_the_images_that_they_name(visit, animals):
    """A tile shows the pixels of the sprite sheet at its position."""
    from PIL import Image

    page = visit(animals)
    folder = animals.parent / "evaluations" / "test"
    index = json.loads((folder / "thumbnails.json").read_text())
    sheet = np.asarray(Image.open(folder / "thumbnails.jpg"))
    page.get_by_role("button", name="dog, predicted emu:").click()
    page.locator(".tiles button").nth(2).click()
    place = index["path"].index(page.locator(".closer bdi").inner_text())
    assert (index["label"][place], index["predicted"][place]) == (1, 2)
    drawn = np.asarray(Image.open(io.BytesIO(page.locator(".closer svg").screenshot())).convert("RGB"), float)
    y, x = (32 * at for at in divmod(place, index["columns"]))
    own = sheet[y : y + 32, x : x + 32].astype(float)
    side = len(drawn)
    small = np.stack([drawn[int((i + 0.5) * side / 32)] for i in range(32)])[
        :, [int((i + 0.5) * side / 32) for i in range(32)]
    ]
    assert np.corrcoef(small.ravel(), own.ravel())[0, 1] > 0.8


def test_cells_open_by_keyboard(visit, animals):
    page = visit(animals)
    page.keyboard.press("Escape")  # closes the cell that is open at the start
    first = page.locator("#cells button[tabindex='0']")
    assert first.count() == 1
    first.focus()
    assert "Choose a cell" in shown(page)
    start = page.evaluate("document.activeElement.dataset.cell")
    i, j = map(int, start.split(","))
    way, there = ("ArrowDown", f"{i + 1},{j}") if i < 2 else ("ArrowUp", f"{i - 1},{j}")
    page.keyboard.press(way)
    assert page.evaluate("document.activeElement.dataset.cell") == there
    page.keyboard.press("Enter")
    assert ("taken for" in shown(page)) or ("recognised" in shown(page))
    page.keyboard.press("ArrowLeft" if j else "ArrowRight")  # an open panel follows the focus
    assert page.evaluate("document.activeElement.getAttribute('aria-expanded')") == "true"
    page.keyboard.press("Tab")  # to Close
    page.keyboard.press("Tab")  # to the images
    before = page.locator(".closer bdi").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator(".closer bdi").inner_text() != before
    page.keyboard.press("Escape")
    assert "Choose a cell" in shown(page)
    assert page.evaluate("document.activeElement.hasAttribute('data-cell')")


def test_tables_are_sorted(visit, animals):
    page = visit(animals)
    table = page.locator("#confusion table.sortable")
    before = table.locator("tbody th").all_inner_texts()
    table.get_by_role("button", name="class").click()
    assert table.locator("tbody th").all_inner_texts() == ["cat", "dog", "emu"]
    table.get_by_role("button", name="class").click()
    assert table.locator("tbody th").all_inner_texts() == ["emu", "dog", "cat"]
    table.get_by_role("button", name="recognised").click()
    assert table.locator("tbody th").all_inner_texts() == before


@pytest.mark.parametrize("size", [WIDE, NARROW])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_overflows_and_text_has_enough_contrast(visit, animals, size, scheme):
    page = visit(animals, size, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == size["width"]
    ink, paper = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    ratio = contrast(ink, paper)
    assert ratio > 12
    for selector, least in (
        (".note", 4.5),
        ("nav a", 4.5),
        (".hero b", 4.5),
        ("summary", 4.5),
        ("#cells td button", 4.5),
    ):
        for element in page.locator(selector).all():
            colours = element.evaluate(
                "e => { const of = (b) => getComputedStyle(b).backgroundColor; let b = e;"
                " while (/, 0\\)$|transparent/.test(of(b))) b = b.parentElement;"
                " return [getComputedStyle(e).color, of(b)]; }"
            )
            assert contrast(*colours) > least, (selector, colours)


def contrast(*colours):
    """Return the contrast ratio of two CSS colours (WCAG 2.2)."""
    luminances = []
    for colour in colours:
        numbers = [
            float(part) for part in colour.replace("color(srgb ", "").strip("rgba()").replace(",", " ").split()[:3]
        ]
        parts = numbers if colour.startswith("color(") else [number / 255 for number in numbers]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        luminances.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)
    return max(luminances) / min(luminances)


LONG = ["cardboard", "International_Business_Machines", "plastic bottle", "under-exposed/ambulance-car", "x" * 60]


@pytest.fixture(scope="module")
def long_names(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("page") / "photos-efficientnetv2_b0-0001", LONG)


# Returns the words of the elements that are drawn on more than one line.
BROKEN = """elements => elements.flatMap(element => {
    const found = [], walk = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) for (const each of walk.currentNode.data.matchAll(/[^\\s\\/]+\\/?/g)) {
        const range = document.createRange();
        range.setStart(walk.currentNode, each.index);
        range.setEnd(walk.currentNode, each.index + each[0].length);
        const tops = new Set([...range.getClientRects()].filter(r => r.width > 0).map(r => Math.round(r.top)));
        if (tops.size > 1) found.push(each[0]);
    }
    return found;
})"""


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_no_word_is_broken(visit, long_names, size):
    page = visit(long_names, size)
    page.get_by_role("button", name="cardboard, predicted International_Business_Machines:").click()
    for selector in (
        "tbody th",
        "button",
        "pre",
        "code",
        "#panel h3",
        "#panel figcaption",
        ".said li",
        ".recipe td",
        ".small figcaption",
    ):
        assert page.locator(selector).evaluate_all(BROKEN) == [], selector
    assert page.evaluate("document.documentElement.scrollWidth") == size["width"]
    row = page.locator("#confusion table.sortable tbody th bdi", has_text="xxxx")
    assert row.get_attribute("title") == "x" * 60
    assert page.locator(".matrix tbody th").last.get_attribute("title") == "x" * 60


def test_f1_is_in_sight_on_a_phone(visit, animals, long_names):
    for path in (animals, long_names):
        page = visit(path, NARROW)
        box = page.locator("#confusion table.sortable tbody tr").first.locator("td").last.bounding_box()
        assert box["x"] + box["width"] <= NARROW["width"]


def test_cells_open_by_tapping_on_a_phone(visit, animals):
    page = visit(animals, NARROW, has_touch=True)
    assert "Choose a cell" in shown(page)
    page.get_by_role("button", name="dog, predicted cat:").tap()
    page.wait_for_timeout(800)  # the page scrolls to the panel
    box = page.locator("#panel").bounding_box()
    assert "dog taken for cat" in shown(page)
    assert 0 <= box["y"] < NARROW["height"] - 200


def test_the_page_prints(visit, animals, tmp_path):
    page = visit(animals)
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible()
    assert page.pdf(path=tmp_path / "page.pdf", format="A4").startswith(b"%PDF")


def test_the_numbers_are_shown_without_script(visit, animals):
    page = visit(animals, java_script_enabled=False)
    assert page.locator("#cells tbody td").count() == 9
    assert page.locator(".samples svg").count() == 32


@pytest.mark.parametrize("classes", [20, 300])
def test_hundreds_of_hostile_names_are_inert(visit, tmp_path, classes):
    names = [f"{HOSTILE[i % len(HOSTILE)]}{i}"[:128] for i in range(classes)]
    path = make_run(tmp_path / "run <b>", names, n=900, name="{label}/<img src=x onerror=window.hacked=1>{i}")
    page = visit(path)
    buttons = page.locator("#cells button")
    assert buttons.count() >= 30
    for at in np.linspace(0, buttons.count() - 1, 12).astype(int).tolist():
        buttons.nth(at).click()
        page.locator(".tiles button").last.click()
    page.locator("#slices thead button").first.click()
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("document.querySelectorAll('img, iframe, object, embed').length") == 0
    assert page.evaluate("document.scripts.length") == 3
    assert page.evaluate("document.documentElement.scrollWidth") == WIDE["width"]


def test_a_report_of_10000_images_is_small_and_fast(tmp_path):
    import time

    names = [f"class {i}" for i in range(10)]
    path = make_run(tmp_path / "run", names, n=10_000)
    assert path.stat().st_size < 5_000_000
    started = time.process_time()
    report(path.parent)
    assert time.process_time() - started < 10
    assert math.isclose(
        len(json.loads((path.parent / "evaluations/test/thumbnails.json").read_text())["path"]), 2900, rel_tol=0.1
    )


def test_labels_are_collected_and_downloaded_as_a_labels_csv(visit, tmp_path):
    """The download is what `train --labels` reads, also with names that a spreadsheet would run."""
    from onsight.data.labels import NONE, read_answers

    classes = ["=cat", "dog", "emu"]
    page = visit(make_run(tmp_path / "photos-cnn-0001", classes, name="{label}/{i}.jpg"))
    box = page.get_by_role("region", name="Collected labels")
    assert box.is_hidden()
    for path, label in (("=cat/0.jpg", "emu"), ("dog/1.jpg", NONE), ("emu/2.jpg", "emu"), ("emu/2.jpg", "")):
        page.get_by_label(f"Label of {path}").select_option(label)
    assert "2 labels collected" in box.inner_text()
    page.get_by_label("Your name").fill("Zoë")
    with page.expect_download() as download:
        box.get_by_role("button").click()
    assert download.value.suggested_filename == "labels.csv"
    found, incomplete = read_answers(download.value.path().read_bytes(), "labels.csv")
    assert {path: {who: each.label for who, each in people.items()} for path, people in found.items()} == {
        "=cat/0.jpg": {"Zoë": "emu"},
        "dog/1.jpg": {"Zoë": NONE},
    }
    assert incomplete == 0
