"""Every page of Onsight shows 100 hostile names of classes, files and runs as text: no script, request or dialog."""

import contextlib
import csv
import json
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

import onsight
from attack.names import UNPRINTABLE, hostile_names
from clients import opened as served
from clients import running
from onsight.__main__ import main
from onsight.core.progress import Reporter

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
NAMES = hostile_names(100)
QUIET = Reporter()


def file_name(number):
    """Return a hostile name of a file: a path separator ends a name."""
    odd = UNPRINTABLE[number % len(UNPRINTABLE)] if number % 3 == 0 else ""
    return f"{NAMES[number % 100].replace('/', '∕')}{odd}{number}.png"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Return a folder with images of 100 hostile classes, a trained and evaluated run, and the other pages."""
    folder = tmp_path_factory.mktemp("hostile") / "a <b> & 'c'"
    (folder / "photos").mkdir(parents=True)
    rng, rows = np.random.default_rng(0), []
    for number in range(1000):
        image = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(image).save(folder / "photos" / file_name(number))
        rows.append((f"photos/{file_name(number)}", NAMES[number % 100]))
    with open(folder / "names.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label"), *rows])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("ONSIGHT_RUNS", "runs")
        patch.setenv("ONSIGHT_CACHE", "cache")
        for seed in (0, 1):
            asked = {"model": "mlp", "epochs": 1, "batch_size": 64, "seed": seed, "split_seed": 0, "image_size": 8}
            run = onsight.train(onsight.TrainSpec("names.csv", **asked), reporter=QUIET)
            onsight.evaluate(run, reporter=QUIET)
            named = folder / "runs" / f"{file_name(7 + seed)[:-4]}"
            shutil.move(run.folder, named)
        runs = sorted((folder / "runs").iterdir())
        onsight.compare(runs, page="compare.html")
        onsight.check("names.csv", out=folder / "checked", reporter=QUIET)
        onsight.export(runs[0], ["web"], reporter=QUIET)
        image = str(next((folder / "photos").iterdir()))
        patch.setattr(sys, "argv", ["onsight", "similar", str(runs[0]), image, "photos", "--quiet"])
        with contextlib.suppress(SystemExit):
            main()
    return folder


def test_the_names_are_100_different_ones():
    assert len(set(NAMES)) == 100


def visited(browser, path):
    """Open a file in a browser, touch what can be touched, and return what happened that should not."""
    context = browser.new_context()
    page, events = context.new_page(), []
    page.on("console", lambda message: events.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: events.append(f"error: {error}"))
    page.on("dialog", lambda dialog: events.append(f"dialog: {dialog.message}"))
    page.on(
        "request", lambda each: None if each.url.startswith(("file:", "data:", "blob:")) else events.append(each.url)
    )
    page.goto(path.as_uri())
    for button in page.locator("button:visible").all()[:40]:
        button.click(timeout=2000, no_wait_after=True)
    page.mouse.move(300, 300)
    page.wait_for_timeout(200)
    if page.evaluate("window.hacked") is not None:
        events.append("a script of a name was run")
    text = page.evaluate("document.body.textContent")
    shown = sum(name in text for name in NAMES)
    context.close()
    return events, shown


@pytest.mark.parametrize("name", ["report.html", "compare.html", "similar.html", "check.html", "model.html"])
def test_pages_from_disk(browser, hostile, name):
    path = next(hostile.rglob(name))
    events, shown = visited(browser, path)
    assert events == []
    assert shown >= {"report.html": 90, "check.html": 10}.get(name, 1)


def test_the_page_of_serve(browser, hostile):
    run = sorted((hostile / "runs").iterdir())[0]
    with running(f"x={run}") as client, served(browser, client) as page:
        page.set_input_files("#file", str(next((hostile / "photos").iterdir())))
        page.wait_for_selector("#classes tbody tr")
        shown = page.locator("#classes tbody").text_content()
        assert sum(name in shown for name in NAMES) >= 90
        assert page.evaluate("window.hacked") is None


def test_the_page_of_studio(browser, hostile):
    with running(hostile / "runs", command="studio", ready=False) as client, served(browser, client) as page:
        for box in page.locator("tbody input[type=checkbox]").all():
            box.check()
        page.wait_for_selector("#legend li >> nth=1")
        names = {run.name for run in (hostile / "runs").iterdir()}
        assert names <= {*page.locator("tbody td").all_text_contents()}
        assert page.evaluate("window.hacked") is None


def test_the_page_of_label(browser, hostile, monkeypatch):
    monkeypatch.chdir(hostile)
    run = sorted((hostile / "runs").iterdir())[0]
    with running(run, "photos", command="label", ready=False) as client, served(browser, client) as page:
        for key in ("1", "2", "ArrowRight", "0", "/"):
            page.keyboard.press(key)
            page.wait_for_timeout(100)
        page.keyboard.type("script")
        page.wait_for_selector("#found button")
        assert "<script>" in page.locator("#found").text_content()
        page.locator("#found button").first.click()
        assert page.evaluate("window.hacked") is None
    with open(hostile / "labels.csv", newline="", encoding="utf-8") as file:
        assert {row["label"] for row in csv.DictReader(file)} & {*NAMES}


def test_json_files_keep_the_names(hostile):
    run = sorted((hostile / "runs").iterdir())[0]
    assert sorted(json.loads((run / "dataset.json").read_text())["classes"]) == sorted(NAMES)
