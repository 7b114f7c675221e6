"""Custom networks: registering a user's function, checking it, and the error when a run's function is missing.

A run records where the function was ("module:function") for a person to read. Nothing here imports a module because a
run names it: only modules that the user imports, or names in ONSIGHT_IMPORT, are executed.
"""

from __future__ import annotations

import importlib
import itertools
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onsight.core.errors import SpecError
from onsight.core.limits import LARGEST_SIZE, SMALLEST_SIZE
from onsight.core.text import count

if TYPE_CHECKING:
    import keras


NAME = "[A-Za-z][A-Za-z0-9_]{0,63}"
Build = Callable[[int, int], "keras.Model"]


def model(
    name: str,
    *,
    description: str = "",
    smallest: int = 8,
    largest: int = LARGEST_SIZE,
    default_size: int = 96,
    normed: bool = False,
) -> Callable[[Build], Build]:
    """Register a function of your own as the network `name`, for training, evaluation, prediction and export.

    The function takes (image_size, num_classes) and returns a `keras.Model` from uint8 RGB (batch, image_size,
    image_size, 3) to the logits (batch, num_classes) of a float32 dense layer named `logits`. The network must
    normalise the images itself. Every layer must have a name, so that a weights file fits in every process.
    `onsight.testing.check_model(name)` tests this and the rest of the contract. The decorator returns the function
    unchanged.

    >>> @onsight.model("mine", description="a linear model")  # doctest: +SKIP
    ... def mine(image_size, num_classes): ...

    Args:
        name: 1 to 64 letters, digits and underscores, starting with a letter; not the name of a built-in network.
        description: one line on what the network is good for, for `onsight models`.
        smallest: side in pixels of the smallest images that the network takes.
        largest: side in pixels of the largest images that the network takes.
        default_size: images are not enlarged beyond this side unless the user asks for it.
        normed: whether a normalisation layer follows each convolution, or the sum that its output is added to, so that
            presets may train the network with Muon.

    Raises:
        SpecError: the name is taken or malformed, or the sizes are not 8 <= smallest <= largest <= 1024.
    """
    from onsight.models.registry import MODELS, Entry

    if not re.fullmatch(NAME, name):
        raise SpecError(f"'{name}' cannot name a model: expected 1 to 64 letters, digits or _, starting with a letter.")
    if not SMALLEST_SIZE <= smallest <= largest <= LARGEST_SIZE:
        raise SpecError(
            f"{name}: expected {SMALLEST_SIZE} <= smallest <= largest <= {LARGEST_SIZE}, not {smallest} and {largest}."
        )

    def register(function: Build) -> Build:
        where = reference(function)
        known = MODELS.get(name)
        if known and (known.build is None or known.function != where):  # the same function again: a rerun notebook cell
            owner = known.function if known.build else "a built-in network"
            raise SpecError(f"The name '{name}' is taken by {owner}. Give {where} another name.")
        MODELS[name] = Entry(
            where, description or where, smallest, largest, default_size, normed=normed, build=function
        )
        return function

    return register


def reference(function: Build) -> str:
    """Return "module:function"; for a function of the running script, as another program would import it."""
    module = function.__module__
    script = getattr(sys.modules.get(module), "__file__", None)
    if module == "__main__" and script and Path(script).stem.isidentifier():
        module = Path(script).stem
    return f"{module}:{function.__qualname__}"


def check_network(name: str, image_size: int, num_classes: int) -> keras.Model:
    """Return a new network `name` that keeps the contract of custom networks.

    The network is built twice, to check that both have the same layers and weights.

    Raises:
        SpecError: the network breaks the contract; the message says what was expected.
    """
    import keras

    from onsight.models.registry import build_model, layer_table

    network, again = (build_model(name, image_size, num_classes) for _ in range(2))
    call = f"{name}({image_size}, {num_classes})"
    if not isinstance(network, keras.Model) or not hasattr(network, "input_shape"):
        raise SpecError(f"{call} returned {type(network).__name__}, expected a keras.Model(inputs, outputs).")
    if (len(network.inputs), len(network.outputs)) != (1, 1):
        raise SpecError(
            f"{call} has {count(len(network.inputs), 'input')} and {count(len(network.outputs), 'output')}, "
            "expected one of each."
        )
    found, expected = f"{network.input.dtype} {network.input_shape}", f"uint8 {(None, image_size, image_size, 3)}"
    if found != expected:
        raise SpecError(f"{call} takes {found}, expected {expected}: the network must normalise the images itself.")
    last = network.layers[-1].name
    found, expected = f"{network.output.dtype} {network.output_shape}", f"float32 {(None, num_classes)}"
    if last != "logits" or found != expected:
        raise SpecError(
            f"{call} ends in '{last}', {found}, expected 'logits', {expected}: "
            'keras.layers.Dense(num_classes, dtype="float32", name="logits"), without softmax.'
        )
    tables = [[*layer_table(each), *(weight.path for weight in each.weights)] for each in (network, again)]
    for first, second in itertools.zip_longest(*tables):
        if first != second:
            raise SpecError(
                f"{call} builds a different network each time: {first}, then {second}. Give every layer a name=: "
                "Keras numbers unnamed layers differently each time, so a weights file would not fit."
            )
    if len({weight.path for weight in network.weights}) < len(network.weights):
        raise SpecError(f"{call} has two weights with the same path: give every layer a different name.")
    return network


def missing(name: str, where: Any) -> str:
    """Return the error message for a run whose custom network is not registered in this process.

    Args:
        name: name of the network.
        where: "module:function" as the run recorded it; untrusted, so it may be anything.
    """
    found = re.fullmatch(r"([\w.]{1,200}):([\w.<>]{1,200})", where) if isinstance(where, str) else None
    if not found:
        return f"The model '{name}' is unknown to this version of Onsight, and no imported module has registered it."
    module, function = found.groups()
    if module == "__main__":
        return f"The model '{name}' is the function {function} of a notebook or session: run its definition first."
    return (
        f"The model '{name}' is the function {function} of the module {module}, which has not been imported. Onsight "
        f"never imports a module because a run names it. If you trust that module, `import {module}` in Python, or set "
        f"ONSIGHT_IMPORT={module} on the command line."
    )


def import_own() -> None:
    """Import the modules that ONSIGHT_IMPORT names, so that the command line knows the user's custom networks.

    The entries are separated as in PATH. Each is the name of a module, also searched for in the current folder, or the
    path of a .py file.

    Raises:
        SpecError: an entry is malformed, or names a module that does not exist. Errors raised inside a module keep
            their traceback.
    """
    from onsight.core.backend import GREETINGS, choose_backend, set_environment, without_lines

    for entry in filter(None, os.environ.get("ONSIGHT_IMPORT", "").split(os.pathsep)):
        folder, module = (Path(entry).parent, Path(entry).stem) if entry.endswith(".py") else (Path(), entry)
        if not re.fullmatch(r"\w+(\.\w+)*", module):
            raise SpecError(
                f"ONSIGHT_IMPORT names '{entry}': expected the name of a module, like nets, or a file, like nets.py."
            )
        if (resolved := str(folder.resolve())) not in sys.path:
            sys.path.append(resolved)  # last: a file there must not shadow an installed package
        if "keras" not in sys.modules:
            set_environment(choose_backend().value)
        try:
            with without_lines(*GREETINGS):
                imported = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module.partition(".")[0] and error.name != module:
                raise
            raise SpecError(f"ONSIGHT_IMPORT names '{entry}', but there is no module '{error.name}'.") from None
        where = imported.__file__ or "built in"
        if entry.endswith(".py") and Path(where).resolve() != Path(entry).resolve():
            raise SpecError(
                f"ONSIGHT_IMPORT names '{entry}', but a module {module} exists already ({where}): rename the file."
            )
