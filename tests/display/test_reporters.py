import contextlib
import io
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from onsight.core.progress import Reporter
from onsight.core.text import duration, epoch_line
from onsight.display.reporters import LiveReporter, NotebookReporter, PlainReporter, in_notebook, make_reporter

ROW = {
    "epoch": 3,
    "epochs": 12,
    "loss": 0.5,
    "accuracy": 0.75,
    "images_per_second": 1234.5,
    "seconds": 65,
    "seconds_left": 600,
}
TICK = {"epoch": 3, "epochs": 12, "step": 5, "steps": 9, "loss": 0.5, "accuracy": 0.75, "images_per_second": 1234.5,
        "seconds_left": 600}  # fmt: skip


def console(width=80, terminal=True):
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, highlight=False, legacy_windows=False)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0.0 s"), (9.94, "9.9 s"), (10, "0:10"), (59.6, "1:00"), (3600, "1:00:00")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_epoch_line_with_and_without_validation():
    assert epoch_line(ROW) == "epoch  3/12  loss 0.500   75.0%  1,234 img/s  1:05  10:00 left"
    assert "validation 0.400   80.0%" in epoch_line(ROW | {"val_loss": 0.4, "val_accuracy": 0.8})


@pytest.mark.parametrize("kind", [LiveReporter, PlainReporter, Reporter])
@pytest.mark.parametrize("width", [30, 80])
def test_every_reporter_takes_all_that_a_training_says(kind, width):
    out = console(width)
    with kind(out) if kind is not Reporter else kind() as show:
        show.note("data", "[not markup] 10 images")
        show.work("reading images", 1, None)
        show.work("reading images", 10, 10)
        show.tick(TICK)
        show.tick(TICK | {"seconds_left": None})
        show.epoch(ROW)
    said = out.file.getvalue()
    assert ("[not markup]" in said) == (kind is not Reporter)
    assert ("1,234 img/s" in said.replace("\n", " ")) == (kind is not Reporter) or width == 30


def test_a_failure_takes_the_display_down():
    show = LiveReporter(console())
    with contextlib.suppress(RuntimeError), show:
        show.tick(TICK)
        raise RuntimeError
    assert show._display is None


def test_what_fits_standard_error(capsys):
    assert type(make_reporter(quiet=True)) is Reporter
    assert type(make_reporter()) is PlainReporter  # captured: not a terminal


class Output:
    """A cell's output that can be changed in place."""

    def __init__(self):
        self.pages, self.made = [], 0

    def display(self, content, **options):
        assert options == {"raw": True, "display_id": True}
        self.made += 1
        self.pages.append(content)
        return self

    def update(self, content, raw):
        self.pages.append(content)


@pytest.fixture
def output(monkeypatch):
    output = Output()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object())))
    monkeypatch.setitem(sys.modules, "IPython.display", output)
    return output


def test_a_notebook_gets_one_output_that_changes(output):
    with make_reporter() as show:
        assert type(show) is NotebookReporter
        show.note("data", "[not markup] <b>")
        for done in range(1, 1001):
            show.work("reading images", done, 1000)
        assert len(output.pages) < 20  # not one for each image
        assert "<progress" not in output.pages[-1]["text/html"]
        show.tick(TICK)
        assert 'value="23" max="108"' in output.pages[-1]["text/html"]  # of all epochs
        assert "10:00 left" in output.pages[-1]["text/html"]
        show.tick(TICK | {"seconds_left": None})
        show.epoch(ROW)
        show.epoch(ROW | {"epoch": 12, "val_loss": 0.4, "val_accuracy": 0.8})
    assert output.made == 1
    assert "&lt;b&gt;" in output.pages[-1]["text/html"]
    assert "<progress" not in output.pages[-1]["text/html"]
    assert "epoch 12/12" in output.pages[-1]["text/plain"]


def test_a_reporter_that_is_used_again_begins_another_output(output):
    show = NotebookReporter()
    for name in ("first", "second"):
        with show:
            show.note("seed", name)
    assert output.made == 2
    assert "first" not in output.pages[-1]["text/plain"]
    with show:
        pass
    assert output.made == 2  # nothing to show


def test_a_failure_in_a_notebook_takes_the_bar_down(output):
    with contextlib.suppress(RuntimeError), NotebookReporter() as show:
        show.tick(TICK)
        raise RuntimeError
    assert "<progress" not in output.pages[-1]["text/html"]


def test_what_is_no_notebook(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not in_notebook()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))  # imported, not running
    assert not in_notebook()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: object()))  # in a terminal
    assert not in_notebook()
