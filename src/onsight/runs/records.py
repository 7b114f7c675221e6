"""What a run's files say, read leniently where a crash may have torn them, and worded safely for page and terminal."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path
from typing import Any

from onsight.core.errors import RunError, plain
from onsight.core.files import read_lines
from onsight.metrics.intervals import chance, points
from onsight.metrics.scores import percent
from onsight.runs.run import Run


def read_evaluations(run: Run) -> dict[str, dict[str, Any]]:
    """Return every finished evaluation's metrics by name, `test` first; none of weights that the run no longer has."""
    folders = sorted(run.evaluation_folder().parent.glob("*/metrics.json"), key=lambda path: path.parent.name)
    found = {path.parent.name: read_object(path) for path in folders}
    weights = (read_object(run.model_folder / "model.json") or {}).get("weights_sha256")
    for name, metrics in found.items():
        if not isinstance(metrics, dict) or "accuracy" not in metrics:
            raise RunError(
                f"{run.evaluation_folder(name) / 'metrics.json'} is damaged. Mend it: onsight evaluate {place(run)}"
            )
    return {
        name: metrics
        for name, metrics in sorted(found.items(), key=lambda item: item[0] != "test")
        if metrics and metrics.get("weights_sha256", weights) == weights
    }


def read_history(run: Run) -> list[dict[str, Any]]:
    """Return the epochs in order; of one that was repeated after a crash, the last. Not-finite figures become None."""
    rows = {}
    for line in read_lines(run.folder / "history.jsonl"):
        if line.get("event") == "epoch" and isinstance(line.get("epoch"), int):
            rows[line["epoch"]] = {
                key: None if isinstance(value, float) and not math.isfinite(value) else value
                for key, value in line.items()
            }
    return [rows[epoch] for epoch in sorted(rows)]


def read_object(path: Path) -> dict[str, Any] | None:
    """Return a JSON object, None where there is no file. Raises RunError where the file is damaged."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except OSError:
        return None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged: {error}.") from None
    return value if isinstance(value, dict) else None


def place(run: Run) -> str:
    """Return how a command names the run: below `runs/`, never with the writer's own folders."""
    name = run.folder.resolve()
    return plain(shlex.quote(f"runs/{name.name}" if name.parent.name == "runs" else name.name))


def short(name: Any, most: int = 40) -> str:
    """Return a stranger's name for a sentence: plain, and cut with an ellipsis."""
    text = plain(str(name))
    return text if len(text) <= most else text[: most - 1] + "…"


def times(n: int) -> str:
    """Return how often: never, once, twice, 3 times."""
    return {0: "never", 1: "once", 2: "twice"}.get(n, f"{n:,} times")


def count(n: int, one: str) -> str:
    """Return a number with its noun: 1 picture, 2 pictures."""
    return f"{n:,} {one}{'' if n == 1 else 's'}"


def comparison_lines(found: dict[str, Any]) -> list[str]:
    """Return for people what teacher.json says of a run and the one that it learned from, a line a fact."""
    before, after = found["runs"]
    said = [
        f"parameters       {before['parameters']:,} before, {after['parameters']:,} after",
        f"{after['file']:<16} {before['bytes']:,} bytes before, {after['bytes']:,} after; compressed "
        f"{before['bytes_compressed']:,} and {after['bytes_compressed']:,}",
        f"one picture      {before['latency_ms']:.2f} ms before, {after['latency_ms']:.2f} ms after",
    ]
    if after["zeros"] > 0.05:
        said.append(
            f"zeros            {after['zeros']:.1%} of the kernels' numbers. They shrink compressed files alone: to a "
            "processor a zero is a number like any other. --channels removes numbers"
        )
    if apart := found.get("difference"):
        shares = [percent(side["validation_accuracy"]) for side in found["runs"]]
        said.append(
            f"validation       {shares[0]} before, {shares[1]} after, on the same {found['validation_n']:,} pictures: "
            f"{points(apart['value'])} points (95 %: {points(apart['low'])} to {points(apart['high'])}; "
            f"{chance(apart['p'])})"
        )
    else:
        said.append("validation       no pictures to compare on: the teacher was trained with --validation 0")
    return said
