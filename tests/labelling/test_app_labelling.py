"""`onsight label` as a process: its requests, what it refuses, and the page in a real browser."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from clients import TOKEN, Client, opened

pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")


@contextmanager
def labelling(folder, *words):
    process = subprocess.Popen(
        [sys.executable, "-m", "onsight", "label", *map(str, words), "--port", "0", "--quiet"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
        env=os.environ | {"ONSIGHT_TOKEN": TOKEN},
    )  # fmt: skip
    try:
        found = re.search(r":(\d+)/", process.stdout.readline())
        assert found, process.communicate()[1]
        yield Client(process, int(found[1]))
    finally:
        process.terminate()
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert "Traceback" not in err, err


def lines(folder):
    with open(folder / "labels.csv", newline="") as file:
        return [(row["path"], row["label"], row["previous"], row["who"]) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """A folder of five images without labels, one of them a copy, and one that cannot be read."""
    folder = tmp_path_factory.mktemp("labelling") / "pool"
    folder.mkdir()
    for name, colour in (("red", (220, 30, 30)), ("green", (20, 200, 30)), ("blue", (20, 20, 230))):
        noise = np.random.default_rng(len(name)).integers(0, 20, (40, 60, 3), np.uint8)
        Image.fromarray(noise + np.array(colour, np.uint8)).save(folder / f"{name}.png")
    shutil.copy(folder / "red.png", folder / "again.png")
    (folder / "broken.png").write_bytes(b"nothing")
    return folder


@pytest.fixture(scope="module")
def desk(toy_run, pool):
    with labelling(pool.parent, toy_run.folder, pool) as client:
        yield client


def test_the_loop_over_http(desk, pool):
    assert desk("GET", "/v1/start")[2]["classes"] == ["blue", "green", "red"]
    state = desk.post("/v1/next", {"session": "a"})[2]
    assert (state["given"], state["of"], state["question"]["label"]) == (0, 3, "")
    other = desk.post("/v1/next", {"session": "b"})[2]
    assert other["question"]["number"] != state["question"]["number"]
    status, headers, content = desk("GET", f"/v1/image/{state['question']['number']}")
    assert (status, headers["content-type"], content[8:12]) == (200, "image/webp", b"WEBP")
    number = state["question"]["number"]
    step = {"session": "a", "who": " Ann ", "question": number}
    after = desk.post("/v1/label", step | {"label": "green"})[2]
    assert after["given"] == 1
    assert desk.post("/v1/undo", {"session": "a", "who": "Ann"})[2]["question"]["number"] == number
    found = lines(pool.parent)
    assert {row[0] for row in found} <= {str(pool / f"{name}.png") for name in ("red", "again", "green", "blue")}
    assert {row[1:] for row in found} == {("green", "", "Ann"), ("", "green", "Ann")}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/label", {"session": "x", "question": 99, "label": "red"}, 404),
        ("/v1/label", {"session": "x", "question": 0, "label": "cow"}, 400),
        ("/v1/label", {"session": "x", "question": "0", "label": "red"}, 400),
        ("/v1/label", {"session": "x", "path": "/etc/passwd"}, 400),
        ("/v1/skip", {"session": "x", "question": -1}, 404),
        ("/v1/undo", {"session": "nobody"}, 409),
        ("/v1/next", {"session": ""}, 400),
        ("/v1/next", {"session": "x" * 65}, 400),
        ("/v1/next", [], 400),
        ("/v1/nothing", {}, 404),
    ],
)
def test_what_is_refused(desk, path, body, status):
    found, _, answer = desk.post(path, body)
    assert (found, "error" in answer) == (status, True)


def test_images_are_numbers_and_never_paths(desk):
    for place in ("99", "-1", "..%2f..%2fetc%2fpasswd", "../../etc/passwd", "0.png", "9" * 40):
        assert desk("GET", f"/v1/image/{place}")[0] == 404, place


def test_the_guard_of_serve_protects_every_address(desk):
    for path in ("/", "/page.js", "/v1/start", "/v1/image/0"):
        assert desk("GET", path, token=None)[0] == 401, path
        assert desk("GET", path, headers={"Origin": "http://evil.example"})[0] == 403, path
        assert desk("GET", path, headers={"Host": "evil.example"})[0] == 400, path
        assert "default-src 'none'" in desk("GET", path)[1]["content-security-policy"], path
    body = json.dumps({"session": "x" * 20_000_000})
    assert desk("POST", "/v1/label", body, {"Content-Type": "application/json"})[0] == 413


NOTHING = r"(?!)"  # a pattern that matches no message
LOOKS = [{}, {"viewport": {"width": 390, "height": 844}, "has_touch": True}, {"color_scheme": "dark"}]


@pytest.mark.parametrize("options", LOOKS, ids=["wide", "phone", "dark"])
def test_the_keyboard_alone_labels_skips_and_undoes(browser, toy_run, pool, tmp_path, options):
    with (
        labelling(tmp_path, toy_run.folder, pool) as client,
        opened(browser, client, allowed=NOTHING, **options) as page,
    ):
        page.fill("#who", "Zoë")
        page.keyboard.press("Enter")  # leaves the field
        for key, told, given in (
            ("2", "Saved: green.", 1), ("ArrowRight", "Skipped.", 1), ("ArrowLeft", "Taken back.", 1),
            ("0", "Saved: none of these.", 2), ("Backspace", "Taken back.", 1),
            ("1", "Saved: blue.", 2), ("3", "Saved: red.", 3),
        ):  # fmt: skip
            page.keyboard.press(key)
            page.wait_for_selector(f"#told:has-text('{told}')")
            page.wait_for_selector(f"#about:has-text('{given} of 3 images have an answer')")
        assert page.inner_text("#asked") == "All images have an answer."
        assert page.evaluate("document.documentElement.scrollWidth") == page.viewport_size["width"]
    assert {row[3] for row in lines(tmp_path)} == {"Zoë"}
    with labelling(tmp_path, toy_run.folder, pool) as client:  # a restart asks nothing again
        assert client.post("/v1/next", {"session": "a"})[2]["given"] == 3


def test_the_label_of_a_folder_is_confirmed_by_enter(browser, toy_run, pool, tmp_path):
    for name in ("red", "blue"):
        (tmp_path / "sorted" / name).mkdir(parents=True)
        shutil.copy(pool / f"{name}.png", tmp_path / "sorted" / name / "1.png")
    with labelling(tmp_path, toy_run.folder, "sorted") as client, opened(browser, client, allowed=NOTHING) as page:
        asked = page.inner_text("#asked")
        page.keyboard.press("Enter")
        page.wait_for_selector("#about:has-text('1 of 2')")
    ((_, label, previous, _),) = lines(tmp_path)
    assert label == previous
    assert asked == f"Is this “{label}”?"


@pytest.fixture
def many():
    """A page with 30 classes, in a thread of this process; yields a client and the rows that were written."""
    import asyncio
    import socket
    import threading

    import uvicorn

    from onsight.imaging.decode import thumbnail
    from onsight.labelling.app import Work, make_app
    from onsight.labelling.desk import Desk
    from onsight.labelling.queue import Question
    from onsight.serving.connection import options
    from onsight.serving.guard import Access
    from onsight.serving.server import known_hosts

    classes = (*(f"bird {n}" for n in range(28)), "<img src=x onerror=window.hacked=1>", "owl")
    rows = []
    questions = [Question((n,), "unsure", tuple((each, 0.2) for each in range(5))) for n in range(2)]
    desk = Desk(questions, ["<b>a.jpg", "b.jpg"], ["", ""], (), classes, rows.extend)
    picture = thumbnail(np.zeros((40, 60, 3), np.uint8), 60, "pad")
    work = Work(desk, "run", classes, "Ann", "labels.csv", "onsight train", lambda _: picture)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        access = Access(TOKEN, known_hosts("127.0.0.1", port, ()), False, port)
        server = uvicorn.Server(uvicorn.Config(make_app(work, access), **options()))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])))
        thread.start()
        yield Client(None, port), rows
        server.should_exit = True
        thread.join()


def test_of_many_classes_the_likeliest_have_digits_and_the_others_are_searched(browser, many):
    client, rows = many
    with opened(browser, client, allowed=NOTHING) as page:
        assert page.locator("#classes button").count() == 5
        page.keyboard.press("/")
        page.keyboard.type("OWL")
        page.keyboard.press("Enter")
        page.wait_for_selector("#told:has-text('Saved: owl.')")
        page.keyboard.press("/")
        page.keyboard.type("img")
        page.locator("#found button").click()
        page.wait_for_selector("#about:has-text('2 of 2')")
        assert page.evaluate("window.hacked") is None
    assert [(row.path, row.label, row.who) for row in rows] == [
        ("<b>a.jpg", "owl", "Ann"), ("b.jpg", "<img src=x onerror=window.hacked=1>", "Ann"),
    ]  # fmt: skip
