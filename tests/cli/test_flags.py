"""What the command line takes: from signatures and docstrings to the values that a command gets."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from onsight.cli.flags import Fields, Flag, descriptions, kinds, options_of, read, summary
from onsight.core.errors import SpecError


class Model(BaseModel):
    size: int | None = Field(None, description="how large", ge=1)
    names: tuple[str, ...] = Field((), description="which")
    fast: bool = Field(False, description="hurry")
    inner: int = Field(0, description="set elsewhere")


def command(
    first: str,
    second: str = "b",
    /,
    *rest: str,
    spec: Annotated[Model | None, Fields(Model, frozenset({"inner"}), hidden=frozenset({"fast"}))] = None,
    top: Annotated[int, Flag("how many")] = 3,
    share: float | None = None,
    out: Path = Path("out.html"),
    form: Literal["table", "json"] = "table",
    layers: Literal["all", "none"] | int | None = None,
    sizes: Annotated[list[int] | None, Flag(several=True)] = None,
    host: list[str] | None = None,
    decide: bool | None = None,
    quiet: bool = False,
    rank: Annotated[int | None, Flag(env="TEST_RANK")] = None,
):
    """Do something.

    More about it.

    Parameters
    ----------
    first
        the first of
        two lines
    share
        a part
    """


def given(*words):
    return read("command", command, words)


def test_what_is_not_given_keeps_its_default():
    assert given("a") == (command, ("a", "b"), {})


def test_every_kind_of_value():
    words = "a c d --top 5 e --share 0.5 --out x.html --form=json --layers 3 --sizes 1 2 --sizes 3 --host h --host i"
    _, arguments, options = given(*words.split(), "--decide", "--quiet")
    assert arguments == ("a", "c", "d", "e")  # flags may stand between them
    assert options == {
        "top": 5, "share": 0.5, "out": Path("x.html"), "form": "json", "layers": 3, "sizes": [1, 2, 3],
        "host": ["h", "i"], "decide": True, "quiet": True,
    }  # fmt: skip
    assert given("a", "--layers", "none", "--no-decide").options == {"layers": "none", "decide": False}


def test_the_fields_of_a_model_are_flags_and_the_model_has_what_was_given():
    spec = given("a", "--size", "4", "--names", "x", "--names", "y", "--fast").options["spec"]
    assert spec == Model(size=4, names=("x", "y"), fast=True)
    assert spec.model_fields_set == {"size", "names", "fast"}


def test_a_variable_of_the_environment_stands_in_for_its_flag(monkeypatch):
    monkeypatch.setenv("TEST_RANK", "2")
    assert given("a").options == {"rank": 2}
    assert given("a", "--rank", "1").options == {"rank": 1}
    monkeypatch.setenv("TEST_RANK", "two")
    with pytest.raises(SpecError, match="TEST_RANK two cannot be used: expected a whole number"):
        given("a")
    monkeypatch.setenv("TEST_RANK", "")
    assert given("a").options == {}


def test_a_dash_is_an_argument_and_two_end_the_flags():
    assert given("a", "-", "x").arguments == ("a", "-", "x")
    assert given("a", "--", "--top", "5").arguments == ("a", "--top", "5")
    assert given("--top", "5", "--", "-a", "-x", "--").arguments == ("-a", "-x", "--")
    assert given("--", "a", "-x").arguments == ("a", "-x")
    for number in ("-1.5", "-1e-3", "-.5"):
        assert given("a", "--share", number).options == {"share": float(number)}
    assert given("a", "--out=-x").options == {"out": Path("-x")}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "onsight command needs FIRST: the first of two lines"),
        (
            ["a", "--tpo", "3"],
            "Unknown option: --tpo. Did you mean --top[?] onsight command --help lists the .*ns.$",
        ),
        (["a", "--to=3"], "Unknown option: --to. Did you mean --top[?]"),
        (["a", "--xyz"], "Unknown option: --xyz. onsight command --help"),
        (["a", "-top"], "Unknown option: -top. onsight command --help"),
        (["a", "--no-quiet"], "Unknown option: --no-quiet"),
        (["a", "--inner", "1"], "Unknown option: --inner"),
        (["a", "--top"], "--top needs a value. onsight command --help"),
        (["a", "--sizes"], "--sizes needs a value"),
        (["a", "--size", "x"], "--size x cannot be used: expected a whole number"),
        (["a", "--quiet=yes"], "--quiet takes no value"),
        (["a", "--out", ""], "--out is empty. Leave it out"),
        ([""], "FIRST is empty"),
        (["a", "--top", "x"], "--top x cannot be used: expected a whole number"),
        (["a", "--share", "x"], "--share x cannot be used: expected a number"),
        (["a", "--form", "x"], "--form x cannot be used: expected table or json"),
        (["a", "--layers", "x"], "--layers x cannot be used: expected all, none or a whole number"),
    ],
)
def test_what_is_refused(words, message):
    with pytest.raises(SpecError, match=message):
        given(*words)


def test_an_argument_too_many():
    def one(first: str, /):
        """Take one."""

    with pytest.raises(SpecError, match="There is one argument too many: 'b'"):
        read("one", one, ["a", "b"])


def test_a_file_that_is_called_like_a_flag_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-x.png").touch()
    with pytest.raises(SpecError, match=r"Unknown option: -x.png. .* The file of that name is ./-x.png"):
        given("a", "-x.png")


def test_the_docstring_is_read():
    assert summary(command) == "Do something.\n\nMore about it."
    assert descriptions(command) == {"first": "the first of two lines", "share": "a part"}
    told = {option.name: option.about.help for option in options_of(command)}
    assert (told["first"], told["top"], told["size"], told["out"]) == (
        "the first of two lines",
        "how many",
        "how large",
        "",
    )
    assert [option.name for option in options_of(command) if option.hidden] == ["fast"]


def test_kinds_of_hints():
    assert kinds(Annotated[Literal["a"] | float | None, "x"]) == ((float,), ("a",), False)
    assert kinds(list[Path]) == ((Path,), (), True)
