"""A process that decodes images and answers them: `python -m onsight.serving.worker RUN THREADS`; see `serving.child`.

Its threads read messages from standard input and write one for each to standard output, with the same number. The
server kills the process if a message takes too long, so an image that stops the decoder or the engine stops nothing
else. It knows neither the token nor the network.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from onsight.core.errors import ImageError, OnsightError
from onsight.core.memory import limit_memory, release_libraries
from onsight.imaging import decode
from onsight.inference.engines import Answers, Engine, LitertEngine, doubts, open_engine
from onsight.inference.heat_maps import heat_maps, overlay
from onsight.runs.run import open_run
from onsight.serving.frames import HEAD, packed, unpacked

MEMORY = 2 << 30  # bytes of private memory for each thread: more than an image within the decoder's limits can need
HEAT_SIDE = 320  # pixels per side of a heat map


def main() -> None:
    """Announce the model, then answer until standard input ends."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # the server decides when a worker ends, by closing standard input
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    source, target = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not end up in a message
    try:
        engine, facts = opened(sys.argv[1], int(sys.argv[2]))
    except OnsightError as error:
        send(target, {"error": str(error)})
        return
    warm = threading.Barrier(facts["threads"])
    reading, writing = threading.Lock(), threading.Lock()

    def helper() -> None:
        warm_up(engine)
        warm.wait()
        work()

    def work() -> None:
        while message := received(source, reading):
            header, parts = message
            answers, content = reply(engine, header["items"], parts)
            with writing:
                send(target, answers | {"number": header["number"]}, content)

    for _ in range(facts["threads"] - 1):
        threading.Thread(target=ended_by_errors, args=(helper,)).start()
    warm.wait()
    release_libraries()
    send(target, {"facts": facts})
    ended_by_errors(work)


def ended_by_errors(work: Callable[[], None]) -> None:
    """Do something; an error in it ends the process, as it would in its only thread."""
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def received(source: BinaryIO, reading: threading.Lock) -> tuple[dict[str, Any], list[bytes]] | None:
    """Return the next message; None at the end."""
    with reading:
        head = source.read(HEAD.size)
        if len(head) < HEAD.size:
            return None
        text, content = HEAD.unpack(head)
        return unpacked(source.read(text), source.read(content))


def opened(run_folder: str, threads: int) -> tuple[Engine, dict[str, Any]]:
    """Return the engine of a run, warm in this thread, and what the server has to know about it."""
    from onsight.models.model_file import read_description

    if os.environ.get("ONSIGHT_IMPORT"):
        from onsight.models.custom import import_own

        import_own()
    run = open_run(run_folder)
    engine = open_engine(run)
    if engine.name == "litert":
        limit_memory(MEMORY * threads)
    else:
        threads = 1  # the backend uses its own
    warm_up(engine)
    description = read_description(run.model_folder)
    return engine, {
        "run": run.name,
        "model": description.model,
        "engine": engine.name,
        "threads": threads,
        "size": engine.size,
        "fit": engine.fit,
        "classes": list(engine.classes),
        "threshold": engine.threshold,
        "distance_threshold": engine.distance_threshold,
        "weights_sha256": description.weights_sha256,
    }


def warm_up(engine: Engine) -> None:
    """Answer once: the first answer of a thread takes longer."""
    engine.answer(np.zeros((1, engine.size, engine.size, 3), np.uint8), threads=1)


def send(target: BinaryIO, header: dict[str, Any], parts: list[bytes] | None = None) -> None:
    """Write a message."""
    target.write(b"".join(packed(header, parts or [])))
    target.flush()


def reply(engine: Engine, items: list[dict[str, Any]], parts: list[bytes]) -> tuple[dict[str, Any], list[bytes]]:
    """Return the answers of images, and for each image bytes: probabilities or a heat map, if they were asked for."""
    pixels = np.zeros((len(items), engine.size, engine.size, 3), np.uint8)
    errors: list[str | None] = [None] * len(items)
    for number, (item, data) in enumerate(zip(items, parts, strict=True)):
        try:
            pixels[number] = pixels_of(engine, item["kind"], data)
        except ImageError as error:
            errors[number] = str(error)
    answers = answer(engine, pixels)
    rows = described(engine, items, answers)
    content = [row.tobytes() if item["full"] else b"" for item, row in zip(items, answers.probabilities, strict=True)]
    for number, item in enumerate(items):
        if errors[number]:
            rows[number], content[number] = {"error": errors[number]}, b""
        elif "explain" in item:
            chosen = rows[number]["top"][0][0] if item["explain"] is None else item["explain"]
            content[number] = heat_map(engine, pixels[number], chosen)
    return {"answers": rows}, content


def answer(engine: Engine, pixels: np.ndarray) -> Answers:
    """Return the answers for images: LiteRT gets them together, Keras one by one, because it compiles each new size."""
    if isinstance(engine, LitertEngine):
        return engine.answer(pixels, threads=1)
    found = [engine.answer(pixels[at : at + 1], threads=1) for at in range(len(pixels))]
    distances = None if found[0].distances is None else np.concatenate([each.distances for each in found])
    return Answers(np.concatenate([each.probabilities for each in found]), distances)


def pixels_of(engine: Engine, kind: str, data: bytes) -> np.ndarray:
    """Return the pixels of an item: those of an image file, or the bytes of an array of the model's size."""
    if kind == "file":
        return decode.load(data, engine.size, engine.fit)
    return np.frombuffer(data, np.uint8).reshape(engine.size, engine.size, 3)


def described(engine: Engine, items: list[dict[str, Any]], answers: Answers) -> list[dict[str, Any]]:
    """Return for each image its likeliest classes as (index, probability), why it is unsure, and its distance."""
    close, unlike = doubts(answers, engine)
    order = np.argsort(-answers.probabilities, axis=1, kind="stable")[:, : max(item["top"] for item in items)]
    shares = np.take_along_axis(answers.probabilities, order, axis=1)
    rows = []
    for number, item in enumerate(items):
        top = zip(order[number, : item["top"]].tolist(), shares[number].tolist(), strict=False)
        rows.append(
            {
                "top": [(index, round(share, 6)) for index, share in top],
                "reason": "far" if unlike[number] else "close" if close[number] else None,
                "distance": None if answers.distances is None else round(float(answers.distances[number]), 6),
            }
        )
    return rows


def heat_map(engine: Engine, pixels: np.ndarray, chosen: int) -> bytes:
    """Return a PNG file of an image (H, W, 3) and where it supports a class, found by occlusion."""
    maps, _ = heat_maps(pixels[None], np.array([chosen]), engine.probabilities)
    file = io.BytesIO()
    Image.fromarray(overlay(pixels, maps[0], HEAT_SIDE)).save(file, "PNG")
    return file.getvalue()


if __name__ == "__main__":
    main()
