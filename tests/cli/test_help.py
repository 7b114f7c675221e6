"""The help: what it lists, in terminals of any width."""

import pytest
from test_flags import command

from onsight.cli.app import COMMANDS
from onsight.cli.help import command_help


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")


def test_the_help_of_a_command():
    assert command_help("command", command).splitlines() == [
        "Usage: onsight command FIRST [SECOND] [REST ...] [OPTIONS]",
        "",
        "Do something.",
        "",
        "More about it.",
        "",
        "Arguments:",
        "  FIRST   the first of two lines",
        "  SECOND  [default: b]",
        "  REST",
        "",
        "Options:",
        "  --size INT             how large",
        "  --names TEXT           which",
        "  --top INT              how many [default: 3]",
        "  --share FLOAT          a part",
        "  --out PATH             [default: out.html]",
        "  --form CHOICE          [choices: table, json] [default: table]",
        "  --layers CHOICE|INT    [choices: all, none]",
        "  --sizes INT ...",
        "  --host TEXT",
        "  --decide, --no-decide",
        "  --quiet",
        "  --rank INT             [env: TEST_RANK]",
    ]


@pytest.mark.parametrize("columns", [30, 60, 100, 300])
def test_no_line_is_wider_than_the_terminal_or_than_can_be_read(columns, onsight, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    for words in (["--help"], *([name, "--help"] for name in COMMANDS)):
        code, out, err = onsight(*words)
        assert (code, err) == (0, "")
        longest = max(out.splitlines(), key=len)
        assert len(longest) <= min(columns, 100) or len(longest.split()) <= 3, longest


def test_a_narrow_terminal_has_descriptions_below_the_names(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert "  --top INT\n      how many [default: 3]" in command_help("command", command)


def test_the_overview_lists_every_command(onsight):
    for words in ([], ["--help"], ["-h"]):
        code, out, _ = onsight(*words)
        assert code == 0
        assert all(f"\n  {name} " in out for name in COMMANDS)
    assert onsight("--version")[1].strip() == __import__("onsight").__version__
    code, _, err = onsight("trian")
    assert code == 2
    assert "No command 'trian'" in err
    assert err.rstrip().endswith("Did you mean 'train'?")


def test_what_is_required_is_in_the_usage(onsight):
    _, out, _ = onsight("log", "--help")
    assert out.startswith("Usage: onsight log [RUN] --to CHOICE [OPTIONS]\n")
    assert "[required]" in out
    assert onsight("presets", "--help")[1].startswith("Usage: onsight presets\n")


def test_help_may_follow_other_words(onsight):
    assert onsight("predict", "latest", "-h")[1].startswith("Usage: onsight predict RUN [IMAGES ...] [OPTIONS]")
    assert onsight("predict", "latest", "--", "--help")[0] == 2  # a file of that name
