"""The command, and the page in a real browser: wide, on a phone, dark, by keyboard, live, and with hostile names."""

import json
import shutil

import pytest

from clients import check_access, opened, running
from onsight.runs.run import Run

HOSTILE = ["</script><script>window.hacked=1</script>", "<img src=x onerror=window.hacked=1>", "{{7*7}} ‮ cnn"]


def test_settings_that_cannot_work_are_refused_with_what_to_do(onsight, folder):
    for words, said in (
        ((folder / "first",), f"is one run; expected the folder of your runs: {folder}"),
        (("gone",), "There is no folder gone"),
        ((folder, "--host", "0.0.0.0", "--no-token"), "--no-token works on this machine only"),
        ((folder, "--port", "99999"), "expected 0 to 65535"),
    ):
        code, _, err = onsight("studio", *words)
        assert (code, said in err) == (2, True), err


@pytest.mark.parametrize(
    "options",
    [{}, {"viewport": {"width": 390, "height": 844}, "has_touch": True}, {"color_scheme": "dark"}],
    ids=["wide", "phone", "dark"],
)
def test_runs_are_shown_sorted_filtered_and_overlaid(browser, studio, options):
    with opened(browser, studio, **options) as page:
        assert page.locator("#runs tbody tr").count() == 3
        for name in ("first", "second", "dead"):
            page.get_by_label(f"Show {name}").check()
        page.wait_for_selector("#legend li:nth-child(3) .stopped:has-text('Stopped after 3 of 8 epochs')")
        page.wait_for_function("document.querySelectorAll('#accuracy path.validation').length === 3")
        assert page.locator("#loss path.training").count() == 3
        assert page.inner_text("#compare") == "To be compared, all of them need a test score; 2 of 3 have one."
        page.click("th button:text-is('run')")
        assert page.locator("tbody td:nth-child(2)").all_inner_texts() == ["dead", "first", "second"]
        page.click("th button:text-is('run')")
        assert page.locator("tbody td:nth-child(2)").all_inner_texts() == ["second", "first", "dead"]
        check_access(page)
        page.fill("#filter", "STOPPED toy")
        assert page.locator("tbody td:nth-child(2)").all_inner_texts() == ["dead"]
        assert page.inner_text("#found") == "1 of 3"
        page.get_by_label("Show dead").uncheck()
        page.fill("#filter", "")
        assert page.evaluate("document.documentElement.scrollWidth") == page.viewport_size["width"]
        with page.context.expect_page() as waiting:
            page.click("#compare a")
        assert waiting.value.locator("h1").count() == 1
        with page.context.expect_page() as waiting:
            page.get_by_label("report of first").click()
        waiting.value.wait_for_selector("h1")
        assert waiting.value.evaluate("window.origin") == "null"  # its scripts are nobody's on this server
        commands = page.locator("#commands code").all_inner_texts()
        assert len(commands) > 5
        assert not any("--resume" in each for each in commands)


def test_the_keyboard_alone_is_enough(browser, studio):
    with opened(browser, studio) as page:
        page.focus("#filter")
        page.keyboard.type("first")
        reached = []
        for _ in range(14):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.ariaLabel || document.activeElement.textContent"))
        assert {"All runs", "run", "validation", "created", "Show first", "report of first"} <= {*reached}, reached
        page.get_by_label("Show first").focus()
        shown = page.is_checked("tbody input")
        page.keyboard.press("Space")
        assert page.is_checked("tbody input") != shown
        assert page.evaluate("document.activeElement.ariaLabel") == "Show first"
        page.focus("th button:text-is('test')")
        page.keyboard.press("Enter")
        assert page.get_attribute("th[data-key=test]", "aria-sort") == "descending"


def test_a_training_is_followed_until_it_ends(browser, make_runs, tmp_path):
    runs = make_runs(tmp_path / "runs")
    first = json.loads((runs / "dead" / "history.jsonl").read_text().splitlines()[0])
    with running(runs, command="studio", ready=False) as studio, opened(browser, studio) as page:
        shutil.copytree(runs / "dead", runs / "new")
        new = Run(runs / "new")
        new.rewrite_history([])
        with new.locked():
            page.wait_for_selector("#legend li:has-text('new') .training:has-text('Starting')")  # it ticks itself
            new.append_history(first)
            page.wait_for_selector("#legend .training:has-text('Epoch 1 of 8')")
            facts = {"epoch": 2, "epochs": 8, "step": 3, "steps": 12, "loss": 0.4, "accuracy": 0.9}
            new.append_history({"event": "tick", **facts, "images_per_second": 1234.5, "seconds_left": 90.0})
            page.wait_for_selector("#legend .training:has-text('step 3 of 12, 1,235 images/s, 2 min left')")
            for number in range(2, 9):
                new.append_history(first | {"epoch": number})
            shutil.copytree(runs / "first" / "model", new.model_folder)
        page.wait_for_selector("#legend li:has-text('new') .trained:has-text('Trained, 8 epochs')")
        assert page.locator("tbody tr:has-text('new') td.trained").count() == 1


def test_hostile_names_stay_text(browser, make_runs, tmp_path):
    runs = make_runs(tmp_path / "runs")
    shutil.rmtree(runs / "dead")
    (runs / "first").rename(runs / HOSTILE[1])
    for name, key, value in (("spec.json", "model", HOSTILE[2]), ("dataset.json", "name", HOSTILE[0])):
        path = runs / HOSTILE[1] / name
        content = json.loads(path.read_text())
        (content["spec"] if key == "model" else content)[key] = value
        path.write_text(json.dumps(content))
    with running(runs, command="studio", ready=False) as studio, opened(browser, studio) as page:
        page.get_by_label(f"Show {HOSTILE[1]}").check()
        page.wait_for_function("document.querySelectorAll('#legend li').length > 0")
        cells = page.locator("tbody td").all_text_contents()
        assert {HOSTILE[1], HOSTILE[0]} <= {*cells}
        assert page.evaluate("window.hacked") is None
        assert page.locator("main img").count() == 0
