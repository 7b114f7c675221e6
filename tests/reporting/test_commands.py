"""Every command that is printed for the user can be pasted where they stand, wherever the runs are."""

import json
import re
import shlex
import sys

import pytest
from PIL import Image

from onsight.__main__ import main
from onsight.cli.app import parsed
from onsight.cli.training import with_data
from onsight.core.files import argument, from_here
from onsight.data.load import load_dataset
from onsight.reporting.commands import check_command, check_command_for, command_for, train_command
from onsight.runs.run import Run
from onsight.spec import TrainSpec

pytestmark = pytest.mark.usefixtures("only_training")

TINY = "--model mlp --epochs 1 --optimizer adam --learning-rate 0.002"


@pytest.fixture
def onsight(onsight):
    """Return a function that runs a command line, checks that it succeeds, and returns all that it prints."""

    def call(line):
        code, out, err = onsight(*shlex.split(line)[1:])
        assert code == 0, f"{line}\n{err}"
        return out + err

    return call


def commands(text):
    """Return the commands in a printed text, each until the end of its line."""
    return re.findall(r"onsight (?:train|evaluate|check|predict|export|compare) .*", text)


@pytest.mark.parametrize(
    ("runs", "stand"), [(None, "."), ("else where/my runs", "."), ("kept", "kept")], ids=["runs", "elsewhere", "inside"]
)
def test_printed_commands_can_be_pasted(onsight, tmp_path, monkeypatch, runs, stand):
    if runs:
        monkeypatch.setenv("ONSIGHT_RUNS", str(tmp_path / runs))
    (tmp_path / stand).mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / stand)
    toy = load_dataset("toy")
    Image.fromarray(toy.images[0]).save("image.jpg")  # the placeholder of an image

    ran = []
    (following,) = commands(onsight(f"onsight train toy {TINY}"))[-1:]
    for _ in range(4):  # train, evaluate, then what each of them advises
        ran.append(following)
        printed = onsight(following)
        found = [line for line in commands(printed) if line not in ran]
        if not found:
            break
        following = found[-1]
    assert ran[0].startswith("onsight evaluate ")
    assert len(ran) >= 2


def test_printed_commands_of_own_images_can_be_pasted_elsewhere(onsight, photos, tmp_path, monkeypatch):
    printed = onsight(f"onsight train photos {TINY}")
    folder = next((tmp_path / "runs").iterdir())
    monkeypatch.chdir(tmp_path / "runs")
    onsight(f"onsight evaluate {folder.name}")
    assert train_command(Run(folder)).startswith(f"onsight train {photos} ")  # they stood in another folder before
    assert train_command(Run(folder), shared=True).startswith("onsight train photos ")
    onsight(train_command(Run(folder)))
    monkeypatch.chdir(tmp_path)
    (check,) = [line for line in commands(printed) if line.startswith("onsight check")]
    assert check == "onsight check photos"
    onsight(check)


def test_the_advised_check_reads_the_data_as_the_training_did(onsight, photos, tmp_path):
    printed = onsight(f"onsight train photos {TINY} --layout classes --exclude green")
    (check,) = [line for line in commands(printed) if line.startswith("onsight check")]
    assert check == "onsight check photos --layout classes --exclude green"
    assert check_command(Run(next((tmp_path / "runs").iterdir()))) == check
    onsight(check)


def test_the_advised_check_leaves_out_what_nobody_chose():
    asked = {"data": "cifar10", "classes": [], "exclude": [], "layout": None, "epochs": 3, "data_dir": "copies"}
    assert check_command_for(asked) == "onsight check cifar10 --data-dir copies"


def test_the_report_names_no_folder_of_the_users_machine(onsight, photos, tmp_path, monkeypatch):
    monkeypatch.setenv("ONSIGHT_RUNS", str(tmp_path / "kept"))
    onsight(f"onsight train photos {TINY}")
    folder = next((tmp_path / "kept").iterdir())
    onsight(f"onsight evaluate {folder}")
    page = (folder / "report.html").read_text()
    recipe = page.index('id="recipe"')  # the table of settings has the folder of the images
    assert str(tmp_path) not in page[:recipe]
    suggested = [re.sub("<.*?>", "", each) for each in re.findall("<code>(onsight .*?)</code>", page[:recipe])]
    assert suggested == [f"onsight evaluate {folder.name} --robustness", "onsight check photos"]


def test_errors_name_commands_that_can_be_pasted(onsight, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ONSIGHT_RUNS", str(tmp_path / "my runs"))
    onsight(f"onsight train toy {TINY}")
    folder = next((tmp_path / "my runs").iterdir())
    (tmp_path / "stand").mkdir()
    monkeypatch.chdir(tmp_path / "stand")
    (folder / "evaluations" / "test").mkdir(parents=True)
    (folder / "evaluations" / "test" / "metrics.json").write_text(json.dumps({}))
    monkeypatch.setattr(sys, "argv", ["onsight", "report", str(folder)])
    with pytest.raises(SystemExit):
        main()
    (again,) = commands(capsys.readouterr().err)
    assert again == f"onsight evaluate '{folder}'"
    onsight(again)


def test_a_path_as_an_argument(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert from_here("a/b") == from_here(tmp_path / "here" / "a" / "b") == "a/b"
    assert from_here("../b") == str(tmp_path / "b")
    assert argument("my run") == "'my run'"
    assert argument("-run") == "./-run"


def test_a_printed_command_gives_the_settings_that_it_is_for():
    given = {
        "classes": ("-a", "b,c"), "weights": "-w", "allow_tiny": False, "learning_rate": 0.01, "freeze": 3,
        "min_precision": None, "labels": "my labels.csv",
    }  # fmt: skip
    spec = TrainSpec("-toy", **given)
    asked = parsed(shlex.split(command_for(spec.model_dump(mode="json", exclude_unset=True)))[1:])
    again = with_data(asked.options["spec"], asked.arguments[0])
    assert again == spec.model_copy(update={"data": "./-toy"})
    assert "--allow-tiny" in command_for({"data": "toy", "allow_tiny": True})
