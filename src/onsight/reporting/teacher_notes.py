"""The comparison of a student with its teacher, from teacher.json, as notes for people."""

from __future__ import annotations

from onsight.core.records import TeacherRecord
from onsight.core.text import chance, percent, points


def teacher_notes(found: TeacherRecord) -> list[tuple[str, str]]:
    """Return pairs of a label and a text, one per fact: sizes, speed and accuracy of the teacher and the student."""
    before, after = found["runs"]
    notes = []
    if before.get("image_size") != after.get("image_size"):
        notes.append(("image size", f"{before['image_size']} px before, {after['image_size']} px after"))
    notes += [
        ("parameters", f"{before['parameters']:,} before, {after['parameters']:,} after"),
        (
            after["file"],
            f"{before['bytes']:,} bytes before, {after['bytes']:,} after; "
            f"compressed {before['bytes_compressed']:,} and {after['bytes_compressed']:,}",
        ),
        ("one image", f"{before['latency_ms']:.2f} ms before, {after['latency_ms']:.2f} ms after"),
    ]
    if after["zeros"] > 0.05:
        notes.append(
            (
                "zeros",
                f"{after['zeros']:.1%} of the kernel weights. Zeros make compressed files smaller, but inference "
                "no faster: a processor multiplies them like other numbers. --channels removes weights",
            )
        )
    if apart := found.get("difference"):
        shares = [percent(side["validation_accuracy"]) for side in found["runs"]]
        notes.append(
            (
                "validation",
                f"{shares[0]} before, {shares[1]} after, on the same {found['validation_n']:,} images: "
                f"{points(apart['value'])} points (95 %: {points(apart['low'])} to {points(apart['high'])}; "
                f"{chance(apart['p'])})",
            )
        )
    else:
        notes.append(("validation", "no images to compare on: the teacher was trained with --validation 0"))
    return notes
