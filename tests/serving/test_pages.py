"""The page in a real browser: what it shows, on a phone, and that nothing foreign is executed or asked for."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from clients import check_access, running
from clients import opened as in_browser
from edits import edit_model

HOSTILE = ["</script><script>window.hacked=1</script>", "<img src=x onerror=window.hacked=1>", "\u202ecat{{7*7}}"]


@pytest.fixture
def colours(tmp_path, red):
    (tmp_path / "red.png").write_bytes(red)
    Image.fromarray(np.zeros((40, 40, 3), np.uint8) + np.array([20, 20, 230], np.uint8)).save(tmp_path / "blue.png")
    (tmp_path / "none.png").write_bytes(b"nothing")
    return tmp_path


def opened(browser, client, **options):
    return in_browser(browser, client, permissions=["camera"], **options)


@pytest.mark.parametrize(
    "options",
    [{}, {"viewport": {"width": 390, "height": 844}, "has_touch": True}, {"color_scheme": "dark"}],
    ids=["wide", "phone", "dark"],
)
def test_an_image_is_answered_explained_and_remembered(browser, server, colours, options):
    with opened(browser, server, **options) as page:
        page.set_input_files("#file", str(colours / "red.png"))
        page.wait_for_selector("#told:has-text('60 × 40 pixels, seen as 32 × 32; answered in')")
        assert page.inner_text("#verdict") == "red"
        assert page.locator("#bars li").count() == 3
        page.click("#why")
        page.wait_for_selector("#heat:not([hidden])")
        page.wait_for_selector("#why:has-text('Show the image')")
        assert page.evaluate("document.getElementById('heat').naturalWidth") == 320
        page.set_input_files("#file", str(colours / "blue.png"))
        page.wait_for_selector("#verdict:has-text('blue')")
        assert page.is_hidden("#heat")
        page.wait_for_selector("#history li:nth-child(2)")
        page.click("#history li:nth-child(2) button")
        page.wait_for_selector("#verdict:has-text('red')")
        assert page.locator("#history li").count() == 2
        assert page.inner_text("#classes th:nth-child(1)") == "class"
        assert page.locator("#classes tbody tr").count() == 3
        assert page.inner_text("#drift")
        width = page.viewport_size["width"]
        assert page.evaluate("document.documentElement.scrollWidth") == width
        check_access(page)
        page.set_input_files("#file", str(colours / "none.png"))
        page.wait_for_selector("#verdict:has-text('No answer')")
        assert page.inner_text("#told").strip()


def test_the_keyboard_alone_is_enough(browser, server, colours):
    with opened(browser, server) as page:
        page.set_input_files("#file", str(colours / "red.png"))
        page.wait_for_selector("#why:not([hidden])")
        reached = set()
        for _ in range(12):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
        assert {"model", "camera", "why", "file", "BUTTON", "A"} <= reached, reached
        page.focus("#why")
        page.keyboard.press("Enter")
        page.wait_for_selector("#heat:not([hidden])")


def test_the_camera_is_classified(browser, server):
    with opened(browser, server) as page:
        page.click("#camera")
        page.wait_for_selector("#rate:has-text('frames/s')", timeout=20_000)
        page.click("#camera")
        assert page.is_hidden("#video")


def test_an_image_can_be_pasted(browser, server, red):
    with opened(browser, server) as page:
        page.evaluate(
            """(bytes) => {
                const data = new DataTransfer();
                data.items.add(new File([new Uint8Array(bytes)], "x.png", { type: "image/png" }));
                document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data }));
            }""",
            list(red),
        )
        page.wait_for_selector("#verdict:has-text('red')")


def test_hostile_names_stay_text(browser, runs, tmp_path, colours):
    shutil.copytree(runs / "toy", tmp_path / "hostile")
    classes = [text.replace("\u202e", "") for text in HOSTILE]
    edit_model(tmp_path / "hostile" / "model", classes=classes)
    path = tmp_path / "hostile" / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"classes": classes}))
    with running(tmp_path / "hostile") as client, opened(browser, client) as page:
        page.set_input_files("#file", str(colours / "red.png"))
        page.wait_for_selector("#classes tbody tr")
        shown = page.locator("#bars li span:first-child").all_text_contents()
        assert sorted(shown) == sorted(text.replace("\u202e", "") for text in HOSTILE)
        assert page.evaluate("window.hacked") is None
        assert page.locator("#bars img, #verdict img, td img").count() == 0
