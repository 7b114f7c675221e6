"""Compare every exported file with `predict`, from image files to answers.

    onsight export RUN litert onnx openvino saved_model keras web
    python benchmarks/file_to_answer.py RUN FOLDER [model.html ...]

FOLDER holds image files, of any kind that a browser reads. For each file of the run's export/, the program opens every
image with the code that the export's README gives away (Pillow and NumPy) and asks the file in its own runtime. The web
page opens the image files itself, in Chromium. Printed are: how many images have other pixels than `predict` sees, the
largest difference of a probability, and how many answers name another class (apart from ties within 1e-5).
"""

from __future__ import annotations

import argparse
import base64
import runpy
from pathlib import Path

import numpy as np

from onsight.exporting.contract import read_contract
from onsight.exporting.formats import FORMATS, READERS
from onsight.imaging import decode
from onsight.inference.engines import open_engine
from onsight.runs.run import open_run

CHROMIUM = "/usr/bin/chromium"
ASK = """async (text) => {
    const file = new Blob([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))]);
    const bitmap = await onsight.decoded(file);
    const pixels = onsight.look(bitmap, bitmap.width, bitmap.height, onsight.facts);
    bitmap.close();
    let packed = "";
    for (let at = 0; at < pixels.length; at += 8192) packed += String.fromCharCode(...pixels.subarray(at, at + 8192));
    return [btoa(packed), Array.from((await onsight.answer(pixels)).probabilities)];
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", help="files of export/; all by default")
    asked = parser.parse_args()
    run = open_run(asked.run)
    files = [path for path in sorted(asked.folder.rglob("*")) if path.suffix.lower() in decode.SUFFIXES]
    engine = open_engine(run)
    pixels = np.stack([decode.load(path, engine.size, engine.fit) for path in files])
    expected = engine.probabilities(pixels)
    open_image = runpy.run_path(str(READERS / "open_image.py"))["open_image"]
    opened = np.stack([open_image(path, engine.size, engine.fit) for path in files])
    folder = run.folder / "export"
    contract = read_contract(folder)
    print(f"{len(files)} files, {engine.size} px, {engine.name}")
    for name, entry in (contract or {"files": {}})["files"].items():
        if asked.names and name not in asked.names:
            continue
        path, seen = folder / name / FORMATS[entry["format"]].opened, opened
        if entry["format"] == "web":
            seen, found = in_browser(path, files)
        else:
            answer = runpy.run_path(str(READERS / f"read_{entry['format']}.py"))["open_model"](path)
            answers = [answer(opened[at : at + 32]) for at in range(0, len(opened), 32)]
            found = np.concatenate([each[0] if isinstance(each, tuple) else each for each in answers])
        print(f"{name:14} {compared(seen, found, pixels, expected)}", flush=True)


def in_browser(path: Path, files: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels and the probabilities of image files, from the page in Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto(path.resolve().as_uri())
        page.wait_for_selector("body[data-state=ready]", timeout=60_000)
        found = [page.evaluate(ASK, base64.b64encode(file.read_bytes()).decode()) for file in files]
        browser.close()
    seen = np.stack([np.frombuffer(base64.b64decode(each), np.uint8) for each, _ in found])
    size = round((seen.shape[1] / 3) ** 0.5)
    return seen.reshape(-1, size, size, 3), np.array([each for _, each in found], np.float32)


def compared(seen: np.ndarray, found: np.ndarray, pixels: np.ndarray, expected: np.ndarray) -> str:
    """Return in words how pixels and probabilities differ from the expected ones."""
    other = (seen != pixels).any(axis=(1, 2, 3)).sum()
    best = np.arange(len(found)), found.argmax(axis=1)
    classes = (expected.max(axis=1) - expected[best] > 1e-5).sum()
    return f"other pixels {other:3}   largest difference {np.abs(found - expected).max():.1e}   other class {classes}"


if __name__ == "__main__":
    main()
