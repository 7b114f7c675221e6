"""What a command takes on the command line: read from its signature and its docstring, so that each is said once.

Positional-only parameters are arguments, all others are flags. argparse splits the words; what a parameter becomes and
what a message says is decided here. Why not a package: docs/decisions/interface.md.
"""

from __future__ import annotations

import argparse
import difflib
import inspect
import os
import re
from collections.abc import Callable, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, NoReturn, Union, get_args, get_origin, get_type_hints

from onsight.core.errors import SpecError

EXPECTED = {int: "a whole number", float: "a number"}  # as messages say it
OPTIONS = "Options"  # the group of flags that name no other


class Flag(NamedTuple):
    """What the annotation of a parameter says beside its type, as in `Annotated[int, Flag("classes per answer")]`.

    Attributes:
        help: the text of the help; else the docstring has it.
        env: the environment variable that holds the value if the flag is not given.
        group: the heading in the help.
        several: whether one flag takes several values: --sizes 5 10. Else a list grows by each flag: --host a --host b.
    """

    help: str = ""
    env: str | None = None
    group: str = OPTIONS
    several: bool = False


class Fields(NamedTuple):
    """The annotation of a parameter that is a pydantic model: each of its fields is a flag.

    Attributes:
        model: the model; a field has its description.
        without: the fields that are no flags.
        hidden: the fields whose flags are taken, but not listed by the help.
    """

    model: Any
    without: frozenset[str] = frozenset()
    hidden: frozenset[str] = frozenset()


class Option(NamedTuple):
    """A flag or an argument.

    Attributes:
        name: of the parameter, or of the field of a model.
        flag: as it is written, --batch-size; empty for an argument.
        types: what the text becomes: str, int, float, Path or bool.
        choices: the texts that are taken as they are.
        repeated: whether it becomes a list.
        default: None if there is none.
        required: whether it has to be given.
        about: what the annotation says.
        owner: for a field, the parameter that gets the model, and the model.
        hidden: whether the help leaves it out.
    """

    name: str
    flag: str
    types: tuple[type, ...]
    choices: tuple[str, ...]
    repeated: bool
    default: Any
    required: bool
    about: Flag
    owner: tuple[str, Any] | None = None
    hidden: bool = False

    @property
    def shown(self) -> str:
        """What messages and the help call it."""
        return self.flag or self.name.upper()

    @property
    def is_switch(self) -> bool:
        """Whether the flag stands alone."""
        return self.types == (bool,)

    @property
    def opposite(self) -> str:
        """The flag that turns a switch off. Only a switch whose default is None has one."""
        has_one = self.is_switch and self.default is None and self.owner is None
        return f"--no-{self.flag[2:]}" if has_one else ""


class Call(NamedTuple):
    """A command, with the values of its arguments and of its flags."""

    function: Callable[..., None]
    arguments: tuple[Any, ...]
    options: dict[str, Any]


# What a command takes ------------------------------------------------------------------------------------------------


def options_of(function: Callable[..., None]) -> list[Option]:
    """Return what a command takes, in the order of its parameters."""
    hints, told = get_type_hints(function, include_extras=True), descriptions(function)
    found = []
    for name, parameter in inspect.signature(function).parameters.items():
        hint, marks = hints[name], getattr(hints[name], "__metadata__", ())
        if fields := next((mark for mark in marks if isinstance(mark, Fields)), None):
            found += fields_of(name, fields)
            continue
        about = next((mark for mark in marks if isinstance(mark, Flag)), Flag())
        rest = parameter.kind is parameter.VAR_POSITIONAL
        argument = rest or parameter.kind is parameter.POSITIONAL_ONLY
        types, choices, repeated = kinds(hint)
        empty = parameter.default is parameter.empty
        found.append(
            Option(
                name=name,
                flag="" if argument else flag_of(name),
                types=types,
                choices=choices,
                repeated=repeated or rest,
                default=None if empty else parameter.default,
                required=empty and not rest,
                about=about if about.help else about._replace(help=told.get(name, "")),
            )
        )
    return found


def fields_of(parameter: str, fields: Fields) -> list[Option]:
    """Return the flags that the fields of a pydantic model make."""
    found = []
    for name, field in fields.model.model_fields.items():
        if name not in fields.without:
            types, choices, repeated = kinds(field.annotation)
            found.append(
                Option(
                    name=name,
                    flag=flag_of(name),
                    types=types,
                    choices=choices,
                    repeated=repeated,
                    default=field.get_default(),
                    required=False,
                    about=Flag(field.description or ""),
                    owner=(parameter, fields.model),
                    hidden=name in fields.hidden,
                )
            )
    return found


def flag_of(name: str) -> str:
    """Return the flag of a parameter: --batch-size."""
    return f"--{name.replace('_', '-')}"


def kinds(hint: Any) -> tuple[tuple[type, ...], tuple[str, ...], bool]:
    """Return the types that a text may become, the texts that are taken as they are, and whether there may be several.

    >>> kinds(Literal["all", "none"] | int | None)
    ((<class 'int'>,), ('all', 'none'), False)
    >>> kinds(tuple[str, ...])
    ((<class 'str'>,), (), True)
    """
    origin = get_origin(hint)
    if origin is Annotated:
        return kinds(get_args(hint)[0])
    if origin is Literal:
        return (), get_args(hint), False
    if origin in (list, tuple):
        types, choices, _ = kinds(get_args(hint)[0])
        return types, choices, True
    if origin in (Union, UnionType):
        parts = [kinds(each) for each in get_args(hint) if each is not NoneType]
        types = tuple(each for part in parts for each in part[0])
        return types, tuple(each for part in parts for each in part[1]), any(part[2] for part in parts)
    return (hint,), (), False


def descriptions(function: Callable[..., None]) -> dict[str, str]:
    """Return what the docstring says about each parameter, below the heading "Parameters"."""
    _, _, section = inspect.cleandoc(function.__doc__ or "").partition("\nParameters\n----------\n")
    found = re.findall(r"^(\w+)\n((?:    .*\n?)+)", section, re.M)
    return {name: " ".join(text.split()) for name, text in found}


def summary(function: Callable[..., None]) -> str:
    """Return what the docstring says about the command."""
    return inspect.cleandoc(function.__doc__ or "").partition("\nParameters\n")[0].strip()


# What it was given ---------------------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """Takes the flags and their values out of words, all as text; a mistake is a SpecError."""

    def __init__(self, command: str, options: Sequence[Option]) -> None:
        super().__init__(command, add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
        self.command, self.options = command, options
        self._negative_number_matcher = re.compile(r"^-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")  # with exponents, too
        for option in options:
            if option.flag:
                self.take(option)

    def take(self, option: Option) -> None:
        """Take a flag."""
        if option.is_switch:
            self.add_argument(option.flag, dest=option.name, action="store_true")
            if option.opposite:
                self.add_argument(option.opposite, dest=option.name, action="store_false")
        elif option.about.several:
            self.add_argument(option.flag, dest=option.name, nargs="+", action="extend")
        else:
            self.add_argument(option.flag, dest=option.name, action="append" if option.repeated else "store")

    def error(self, message: str) -> NoReturn:
        """Refuse the words."""
        said = re.sub(r"^argument (\S+): expected .*argument$", r"\1 needs a value", message)
        said = re.sub(r"^argument (\S+): ignored explicit argument.*", r"\1 takes no value", said)
        raise SpecError(f"{said[0].upper()}{said[1:]}. onsight {self.command} --help lists the options.")

    def split(self, words: Sequence[str]) -> dict[str, Any]:
        """Return the texts by the names of the parameters.

        Raises:
            SpecError: there is no such flag, a flag has no value, or there are too many arguments.
        """
        end = end_of_flags(words)
        found, arguments = self.parse_known_args(words[:end])
        if unknown := next((word for word in arguments if word.startswith("-") and word != "-"), ""):
            raise SpecError(self.unknown(unknown))
        arguments += words[end + 1 :]
        texts = vars(found)
        for option in self.options:
            if not option.flag and arguments:
                texts[option.name] = arguments if option.repeated else arguments.pop(0)
                arguments = [] if option.repeated else arguments
        if arguments:
            raise SpecError(
                f"There is one argument too many: '{arguments[0]}'. onsight {self.command} --help lists the arguments."
            )
        return texts

    def unknown(self, word: str) -> str:
        """Return what to say about a word that begins with a hyphen and is no flag."""
        flag = word.partition("=")[0]
        nearest = difflib.get_close_matches(flag, self._option_string_actions, n=1) if flag.startswith("--") else []
        meant = f"Did you mean {nearest[0]}? " if nearest else ""
        file = f" The file of that name is ./{word}" if os.path.lexists(word) else ""
        return f"Unknown option: {flag}. {meant}onsight {self.command} --help lists the options.{file}"


def end_of_flags(words: Sequence[str]) -> int:
    """Return where flags end among words: at the first --, or behind the last word."""
    return words.index("--") if "--" in words else len(words)


def read(command: str, function: Callable[..., None], words: Sequence[str]) -> Call:
    """Return a command with what these words give it.

    Raises:
        SpecError: the words cannot be used.
    """
    options = options_of(function)
    given = Parser(command, options).split(words)
    values: dict[str, Any] = {}
    fields: dict[tuple[str, Any], dict[str, Any]] = {}
    for option in options:
        text, name = given.get(option.name), option.shown
        if text is None and option.about.env:
            text, name = os.environ.get(option.about.env) or None, option.about.env
        if text is not None:
            place = fields.setdefault(option.owner, {}) if option.owner else values
            place[option.name] = converted(option, text, name)
        elif option.required:
            what = f": {option.about.help}" if option.about.help else ""
            raise SpecError(f"onsight {command} needs {name}{what}.")
    values |= {parameter: model(**chosen) for (parameter, model), chosen in fields.items()}
    return call(function, values)


def call(function: Callable[..., None], values: dict[str, Any]) -> Call:
    """Return a command with the values of its parameters. A parameter without a value keeps its default."""
    arguments: list[Any] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            arguments += values.pop(name, ())
        elif parameter.kind is parameter.POSITIONAL_ONLY:
            arguments.append(values.pop(name, parameter.default))
    return Call(function, tuple(arguments), values)


def converted(option: Option, text: Any, name: str) -> Any:
    """Return the value of a text, or of each text of a list.

    Args:
        option: what it is for.
        text: the text, a list of texts, or whether a switch is on.
        name: what messages call it.

    Raises:
        SpecError: it is empty, or none of the choices and no number.
    """
    if isinstance(text, bool):
        return text
    if isinstance(text, list):
        return [converted(option, each, name) for each in text]
    if not text:
        raise SpecError(f"{name} is empty. Leave it out, or give it a value.")
    if text in option.choices:
        return text
    for kind in option.types:
        try:
            return kind(text)
        except ValueError:
            continue
    expected = [*option.choices, *(EXPECTED[kind] for kind in option.types)]
    raise SpecError(f"{name} {text} cannot be used: expected {one_of(expected)}.")


def one_of(names: Sequence[str]) -> str:
    """Return names as a sentence has them.

    >>> one_of(["text"]), one_of(["table", "csv", "json"])
    ('text', 'table, csv or json')
    """
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last
