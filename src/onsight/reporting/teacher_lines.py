"""What teacher.json says of a student and its teacher, in lines for people."""

from __future__ import annotations

from typing import Any

from onsight.core.text import chance, percent, points


def comparison_lines(found: dict[str, Any]) -> list[str]:
    """Return for people what teacher.json says of a run and the one that it learned from, a line a fact."""
    before, after = found["runs"]
    said = [
        f"parameters       {before['parameters']:,} before, {after['parameters']:,} after",
        f"{after['file']:<16} {before['bytes']:,} bytes before, {after['bytes']:,} after; compressed "
        f"{before['bytes_compressed']:,} and {after['bytes_compressed']:,}",
        f"one image      {before['latency_ms']:.2f} ms before, {after['latency_ms']:.2f} ms after",
    ]
    if after["zeros"] > 0.05:
        said.append(
            f"zeros            {after['zeros']:.1%} of the kernels' numbers. They shrink compressed files alone: to a "
            "processor a zero is a number like any other. --channels removes numbers"
        )
    if apart := found.get("difference"):
        shares = [percent(side["validation_accuracy"]) for side in found["runs"]]
        said.append(
            f"validation       {shares[0]} before, {shares[1]} after, on the same {found['validation_n']:,} images: "
            f"{points(apart['value'])} points (95 %: {points(apart['low'])} to {points(apart['high'])}; "
            f"{chance(apart['p'])})"
        )
    else:
        said.append("validation       no images to compare on: the teacher was trained with --validation 0")
    return said
