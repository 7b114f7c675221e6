import contextlib
import io

import pytest
from rich.console import Console

from onsight.progress import LiveReporter, PlainReporter, Reporter, duration, epoch_line, make_reporter

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
        show.note("data [not markup] 10 pictures")
        show.work("reading pictures", 1, None)
        show.work("reading pictures", 10, 10)
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
