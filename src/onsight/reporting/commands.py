"""The commands that reports and messages suggest: to train a run again, with or without changes."""

from __future__ import annotations

import os
import shlex
from typing import Any

from onsight.core.files import from_here
from onsight.core.text import plain
from onsight.data.reading import Reading, listed
from onsight.runs.run import Run
from onsight.spec import Role, fields_with

PATHS = "data", "data_dir", "keep_list", "labels", "weights"  # settings that may be paths


def train_command(run: Run, *, shared: bool = False, **changes: Any) -> str:
    """Return the command that trains a run again, with the settings of `changes` replaced; None leaves one out.

    It can be pasted where the user stands. With `shared`, for a file that may be sent to others, it names paths as the
    user gave them for the training, and a teacher as a folder of `runs/`, without the folders of the user's machine.
    """
    asked = _asked(run, shared)
    if teacher := run.record.get("teacher"):
        verb, words = (
            "distill",
            {key: value for key, value in asked.items() if key not in {*fields_with(Role.TEACHERS), "teacher"}},
        )
        removed = 1 - (1 - (run.spec.get("channels") or 0.0)) / (1 - teacher.get("channels", 0.0))
        share = {"channels": round(removed, 6)} if removed > 1e-9 else {"sparsity": run.spec.get("sparsity")}
        if any(share.values()):
            verb, words = "prune", share | {key: run.spec[key] for key in ("epochs", "learning_rate")}
        return command_for({"data": teacher_place(run, shared=shared), **words, **changes}, verb)
    return command_for({"data": _found(run, "data"), **asked, **changes})


def check_command(run: Run, *, shared: bool = False) -> str:
    """Return the command that checks the data of a run, read as the run read it; `shared` as in `train_command`."""
    return check_command_for({"data": _found(run, "data"), **_asked(run, shared)})


def check_command_for(asked: dict[str, Any]) -> str:
    """Return the command that checks the data of the settings `asked`, read as they say."""
    return command_for(
        {name: asked[name] for name in ("data", *Reading._fields, "data_dir") if asked.get(name)}, "check"
    )


def _asked(run: Run, shared: bool) -> dict[str, Any]:
    """Return the settings that the user gave for a training, with paths as `train_command` shows them."""
    asked: dict[str, Any] = run.record.get("asked", {})
    if shared:
        return asked
    return asked | {key: _found(run, key) for key in PATHS if key in asked and os.path.isabs(str(run.spec.get(key)))}


def teacher_place(run: Run, *, shared: bool = False) -> str:
    """Return the run that this one was made from, as an argument without quotes; `shared` as in `train_command`."""
    name = run.record["teacher"]["run"]
    beside = run.folder.resolve().parent / name
    taught_by = str(run.spec.get("teacher") or "")
    if shared or not (beside.is_dir() or os.path.isdir(taught_by)):
        return f"runs/{name}"
    return from_here(beside if beside.is_dir() else taught_by)


def _found(run: Run, key: str) -> Any:
    """Return a setting of a run; if it is an absolute path, as it is valid from the current folder."""
    value = run.spec.get(key, "")
    return from_here(value) if isinstance(value, str) and os.path.isabs(value) else value


def command_for(asked: dict[str, Any], verb: str = "train") -> str:
    """Return the command for the settings `asked`: `data`, and other fields of a spec unless they are None or False."""
    data = str(asked["data"])
    words = ["onsight", verb, f".{os.sep}{data}" if data.startswith("-") else data]
    for key, value in asked.items():
        if key == "data" or value is None or value is False:
            continue
        flag, text = f"--{key.replace('_', '-')}", listed(value) if isinstance(value, list | tuple) else str(value)
        if value is True:
            words.append(flag)
        else:
            words += [f"{flag}={text}"] if text.startswith("-") else [flag, text]
    return plain(shlex.join(words))
