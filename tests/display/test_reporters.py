import contextlib
import io
import re
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from onsight.core.progress import Reporter
from onsight.core.text import duration, epoch_line
from onsight.display import reporters
from onsight.display.live_reporter import LiveReporter
from onsight.display.reporters import NotebookReporter, PlainReporter, in_notebook, make_reporter

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
def test_every_reporter_accepts_every_event(kind, width):
    out = console(width)
    with {LiveReporter: lambda: kind(out), PlainReporter: lambda: kind(out.file), Reporter: kind}[kind]() as show:
        show.note("data", "[not markup] 10 images")
        show.work("reading images", 1, None)
        show.work("reading images", 10, 10)
        show.tick(TICK)
        show.tick(TICK | {"seconds_left": None})
        show.epoch(ROW)
    printed = out.file.getvalue()
    assert ("[not markup]" in printed) == (kind is not Reporter)
    assert ("1,234 img/s" in printed.replace("\n", " ")) == (kind is not Reporter) or width == 30


@pytest.mark.parametrize("width", [24, 40, 60, 100])
def test_a_narrow_terminal_never_cuts_the_number_of_the_epoch(width):
    out = console(width)
    with LiveReporter(out) as show:
        show.tick(TICK)
        show._display.refresh()
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.file.getvalue()).replace("\r", "\n").split("\n")
    drawn = [line for line in lines if "loss" in line]
    assert drawn
    for line in drawn:
        assert line.startswith("epoch 3/12 ")
        assert "loss 0.500"[: width - 12] in line
        assert ("━" in line) == (width >= 60)
    assert any("10:00 left" in line for line in drawn) == (width == 100)


def test_an_error_removes_the_live_display():
    show = LiveReporter(console())
    with contextlib.suppress(RuntimeError), show:
        show.tick(TICK)
        raise RuntimeError
    assert show._display is None


def test_the_reporter_fits_standard_error(capsys):
    assert type(make_reporter(quiet=True)) is Reporter
    assert type(make_reporter()) is PlainReporter  # captured: not a terminal
    assert (make_reporter().verbose, make_reporter(verbose=True).verbose) == (False, True)


def test_a_terminal_without_rich_gets_plain_lines(monkeypatch):
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: True))
    assert type(make_reporter()) is LiveReporter
    monkeypatch.setattr(reporters, "find_spec", lambda name: None)
    assert type(make_reporter()) is PlainReporter


def test_plain_lines_cannot_control_a_terminal():
    out = io.StringIO()
    PlainReporter(out).note("data", "evil\x1b[31m")
    assert "\x1b" not in out.getvalue()


class Output:
    """A fake of IPython.display: one output of a cell, which can be updated in place."""

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


def test_a_notebook_updates_one_output(output):
    with make_reporter() as show:
        assert type(show) is NotebookReporter
        show.note("data", "[not markup] <b>")
        for done in range(1, 1001):
            show.work("reading images", done, 1000)
        assert len(output.pages) < 20  # not one update per image
        assert "<progress" not in output.pages[-1]["text/html"]
        show.tick(TICK)
        assert 'value="23" max="108"' in output.pages[-1]["text/html"]  # counts the steps of all epochs
        assert "10:00 left" in output.pages[-1]["text/html"]
        show.tick(TICK | {"seconds_left": None})
        show.epoch(ROW)
        show.epoch(ROW | {"epoch": 12, "val_loss": 0.4, "val_accuracy": 0.8})
    assert output.made == 1
    assert "&lt;b&gt;" in output.pages[-1]["text/html"]
    assert "<progress" not in output.pages[-1]["text/html"]
    assert "epoch 12/12" in output.pages[-1]["text/plain"]


def test_a_reporter_that_is_used_again_starts_another_output(output):
    show = NotebookReporter()
    for name in ("first", "second"):
        with show:
            show.note("seed", name)
    assert output.made == 2
    assert "first" not in output.pages[-1]["text/plain"]
    with show:
        pass
    assert output.made == 2  # no output without notes or progress


def test_an_error_in_a_notebook_removes_the_bar(output):
    with contextlib.suppress(RuntimeError), NotebookReporter() as show:
        show.tick(TICK)
        raise RuntimeError
    assert "<progress" not in output.pages[-1]["text/html"]


def test_processes_that_are_not_a_notebook(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not in_notebook()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))  # imported, not running
    assert not in_notebook()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: object()))  # IPython in a terminal
    assert not in_notebook()


ROWS = [("trial", "right"), ("7", "80.0 %"), ("preset", "78.1 %")]


def test_a_pipe_gets_each_row_of_a_table_once_and_again_when_it_changes():
    out = io.StringIO()
    show = PlainReporter(out)
    show.table(ROWS)
    show.table(ROWS)
    show.table([*ROWS[:2], ("preset", "79.0 %")])
    assert out.getvalue().splitlines() == ["trial   right", "7       80.0 %", "preset  78.1 %", "preset  79.0 %"]


def test_a_terminal_shows_the_table_above_the_bar_and_keeps_it_at_the_end():
    out = console()
    with LiveReporter(out) as show:
        show.table(ROWS)
        show.work("trial 7, epoch 1/3", 5, 60)
        show._display.refresh()
        shown = out.file.getvalue()
        assert shown.index("7       80.0 %") < shown.index("trial 7, epoch 1/3")
    assert out.file.getvalue().rstrip().endswith("preset  78.1 %")


def test_a_low_terminal_cuts_the_table_from_below():
    out = Console(file=io.StringIO(), force_terminal=True, width=80, height=10, legacy_windows=False)
    show = LiveReporter(out)
    show.table([("trial", "right"), *((str(number), "1 %") for number in range(50))])
    assert str(show._lines(4)).splitlines() == ["trial  right", "0      1 %", "1      1 %", "2      1 %", "…"]
