"""The commands that reports and messages suggest: to train a run again, with or without changes."""

from __future__ import annotations

import shlex
from typing import Any

from onsight.core.text import plain
from onsight.data.reading import listed
from onsight.runs.run import Run
from onsight.spec import Role, fields_with


def train_command(run: Run, **changes: Any) -> str:
    """Return the command that trains a run again, with the settings of `changes` replaced; None leaves one out."""
    asked = run.record.get("asked", {})
    if teacher := run.record.get("teacher"):
        verb, words = (
            "distill",
            {key: value for key, value in asked.items() if key not in {*fields_with(Role.TEACHERS), "teacher"}},
        )
        removed = 1 - (1 - (run.spec.get("channels") or 0.0)) / (1 - teacher.get("channels", 0.0))
        share = {"channels": round(removed, 6)} if removed > 1e-9 else {"sparsity": run.spec.get("sparsity")}
        if any(share.values()):
            verb, words = "prune", share | {key: run.spec[key] for key in ("epochs", "learning_rate")}
        return command_for({"data": f"runs/{teacher['run']}", **words, **changes}, verb)
    return command_for({"data": run.spec.get("data", ""), **asked, **changes})


def command_for(asked: dict[str, Any], verb: str = "train") -> str:
    """Return the command for the settings `asked`: `data` and any other fields of a spec. None leaves one out."""
    words = ["onsight", verb, str(asked["data"])]
    for key, value in asked.items():
        if key == "data":
            continue
        flag = key.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, list | tuple):
            words += [f"--{flag}", listed(value)]
        elif value is not None:
            words += [f"--{flag}", str(value)]
    return plain(shlex.join(words))
