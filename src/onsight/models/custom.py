"""Networks of the user's own: a function becomes a name of the registry, and what a run says when it is missing.

A run records where such a function was ("module:function") for a person to read. Nothing here imports what a run names:
only what the user imports, or names in ONSIGHT_IMPORT, is run.
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

if TYPE_CHECKING:
    import keras


NAME = "[A-Za-z][A-Za-z0-9_]{0,63}"
Build = Callable[[int, int], "keras.Model"]


def model(
    name: str,
    *,
    description: str = "",
    smallest: int = 8,
    largest: int = 1024,
    default_size: int = 96,
    normed: bool = False,
) -> Callable[[Build], Build]:
    """Register a function of your own as the network `name`, for training and all that follows.

    The function takes (image_size, num_classes) and returns a `keras.Model` from uint8 RGB (batch, image_size,
    image_size, 3) to the logits (batch, num_classes) of a float32 dense layer named `logits`. It normalises inside, and
    names every layer, so that a file of weights fits in every process. `onsight.testing.check_model(name)` tests that
    and the rest of the contract. The function is given back unchanged.

    >>> @onsight.model("mine", description="a linear model")  # doctest: +SKIP
    ... def mine(image_size, num_classes): ...

    Args:
        name: 1 to 64 letters, digits and underscores, beginning with a letter; not a built-in network's.
        description: what it is good for, in a line, for `onsight models`.
        smallest: side in pixels of the smallest images that it takes.
        largest: side of the largest.
        default_size: images are not enlarged beyond it unless the user says so.
        normed: whether a norm follows each convolution, or the sum that it goes into, so that presets may train it by
            Muon.

    Raises:
        SpecError: the name is taken or no name, or the sizes are not 8 <= smallest <= largest <= 1024.
    """
    from onsight.models.registry import MODELS, Entry

    if not re.fullmatch(NAME, name):
        raise SpecError(f"'{name}' cannot name a model: expected 1 to 64 letters, digits, _, beginning with a letter.")
    if not 8 <= smallest <= largest <= 1024:
        raise SpecError(f"{name}: expected 8 <= smallest <= largest <= 1024, not {smallest} and {largest}.")

    def register(function: Build) -> Build:
        where = reference(function)
        known = MODELS.get(name)
        if known and (known.build is None or known.function != where):  # a notebook's cell is run again
            owner = known.function if known.build else "a network of Onsight's"
            raise SpecError(f"The name '{name}' is taken by {owner}. Give {where} another.")
        MODELS[name] = Entry(
            where, description or where, smallest, largest, default_size, normed=normed, build=function
        )
        return function

    return register


def reference(function: Build) -> str:
    """Return "module:function"; of a script's own function the name by which another program would import it."""
    module = function.__module__
    script = getattr(sys.modules.get(module), "__file__", None)
    if module == "__main__" and script and Path(script).stem.isidentifier():
        module = Path(script).stem
    return f"{module}:{function.__qualname__}"


def check_network(name: str, image_size: int, num_classes: int) -> keras.Model:
    """Return the network `name`, new, after a look at whether it fits the contract; it is built twice for that.

    Raises:
        SpecError: it does not; the message says what was expected.
    """
    import keras

    from onsight.models.registry import build_model, layer_table

    network, again = (build_model(name, image_size, num_classes) for _ in range(2))
    call = f"{name}({image_size}, {num_classes})"
    if not isinstance(network, keras.Model) or not hasattr(network, "input_shape"):
        raise SpecError(f"{call} returned {type(network).__name__}, not a keras.Model made of inputs and outputs.")
    if (len(network.inputs), len(network.outputs)) != (1, 1):
        raise SpecError(
            f"{call} has {len(network.inputs)} inputs and {len(network.outputs)} outputs, expected one each."
        )
    found, expected = f"{network.input.dtype} {network.input_shape}", f"uint8 {(None, image_size, image_size, 3)}"
    if found != expected:
        raise SpecError(f"{call} takes {found}, expected {expected}: the network itself normalises the images.")
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
                f"{call} is another network each time: {first}, then {second}. Give every layer a name=, for Keras "
                "counts up those without, and no file of weights would fit."
            )
    if len({weight.path for weight in network.weights}) < len(network.weights):
        raise SpecError(f"{call} has two weights of the same path: give its layers names unlike each other.")
    return network


def missing(name: str, where: Any) -> str:
    """Return the message for a run whose network is a user's own that is not registered here.

    Args:
        name: the network's.
        where: "module:function" as the run recorded it; whatever a file said.
    """
    found = re.fullmatch(r"([\w.]{1,200}):([\w.<>]{1,200})", where) if isinstance(where, str) else None
    if not found:
        return f"The model '{name}' is not one that this Onsight has, and no import has registered it."
    module, function = found.groups()
    if module == "__main__":
        return f"The model '{name}' is the function {function} of a notebook or a session: run its definition first."
    return (
        f"The model '{name}' is the function {function} of the module {module}, which has not been imported; a run "
        f"never imports code by itself. If you trust that module: `import {module}` in Python, or on the command line "
        f"set ONSIGHT_IMPORT={module}"
    )


def import_own() -> None:
    """Import the modules that ONSIGHT_IMPORT names, so that the command line has the user's own networks.

    Separated as in PATH; each is a module's name, looked for in the current folder too, or the path of a .py file.

    Raises:
        SpecError: there is no such module. What goes wrong inside it keeps its traceback.
    """
    from onsight.core.backend import GREETINGS, choose_backend, set_environment, without_lines

    for entry in filter(None, os.environ.get("ONSIGHT_IMPORT", "").split(os.pathsep)):
        folder, module = (Path(entry).parent, Path(entry).stem) if entry.endswith(".py") else (Path(), entry)
        if not re.fullmatch(r"\w+(\.\w+)*", module):
            raise SpecError(
                f"ONSIGHT_IMPORT names '{entry}'; expected a module's name, like nets, or a file, like nets.py."
            )
        if (resolved := str(folder.resolve())) not in sys.path:
            sys.path.append(resolved)  # last: nothing that lies about there may stand in for an installed package
        if "keras" not in sys.modules:
            set_environment(choose_backend().value)
        try:
            with without_lines(*GREETINGS):
                imported = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module.partition(".")[0] and error.name != module:
                raise
            raise SpecError(f"ONSIGHT_IMPORT names '{entry}', and there is no module '{error.name}'.") from None
        where = imported.__file__ or "built in"
        if entry.endswith(".py") and Path(where).resolve() != Path(entry).resolve():
            raise SpecError(
                f"ONSIGHT_IMPORT names '{entry}', but {module} is a module already ({where}): rename the file."
            )
