from onsight.core import errors, text
from onsight.core.errors import Interrupted, OnsightError, TrainingError, unknown_name


def test_unknown_name_lists_the_known_names_and_the_nearest():
    assert unknown_name("model", "resnet", ["cnn", "resnet20"]) == (
        "No model 'resnet'. Known: cnn, resnet20. Did you mean 'resnet20'?"
    )
    assert unknown_name("model", "zzz", ["cnn"]) == "No model 'zzz'. Known: cnn."
    message = unknown_name("class", "999", map(str, range(1000)))
    assert "98, 99 and 900 more. Did you mean '99" in message


def test_exit_codes():
    assert OnsightError.exit_code == 2
    assert TrainingError.exit_code == 1
    assert Interrupted("stopped", 143).exit_code == 143


def test_the_tree_in_the_docstring_names_every_error():
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, OnsightError):
            assert name in errors.__doc__


def test_text_from_files_cannot_control_the_terminal():
    assert text.plain("a\x1b[2Jb\n\u202e") == "a\ufffd[2Jb\ufffd\ufffd"
    assert text.printable("a\x1b[2Jb\n") == "a\ufffd[2Jb\n"
