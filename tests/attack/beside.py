"""What happens beside some commands: a server has the files that they download, or a person answers on their page."""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import http.client
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

TOKEN = "attack-token-0123456789-abcdefghijk"
COUNTS = (30, 10)  # images of the MNIST that is served


@contextlib.contextmanager
def beside(words: list[str]) -> Iterator[list[str]]:
    """Do what has to happen beside a command of this process; yield its words, with what only this process knows."""
    if words[:2] == ["datasets", "mnist"]:
        with mnist_served() as address:
            os.environ["ONSIGHT_MNIST_URL"] = address
            yield words
    elif words[0] == "label":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        os.environ["ONSIGHT_TOKEN"] = TOKEN
        threading.Thread(target=answer_all, args=(port,), daemon=True).start()
        yield [*words, "--port", str(port)]
    else:
        yield words


def answer_all(port: int) -> None:
    """Give every image that the page asks about a class that depends on its name only, and end the command."""
    ask = wait_for_page(port)
    classes = ask("GET", "/v1/start", None)["classes"]
    state = ask("POST", "/v1/next", {"session": "a"})
    while asked := state["question"]:
        label = classes[int(Path(asked["path"]).stem) % len(classes)]
        state = ask("POST", "/v1/label", {"session": "a", "who": "Ann", "question": asked["number"], "label": label})
    os.kill(os.getpid(), signal.SIGINT)


def wait_for_page(port: int) -> Any:
    """Return a function that asks the page, once it answers."""

    def ask(method: str, path: str, value: Any) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        connection.request(method, path, None if value is None else json.dumps(value), headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        assert answer.status == 200, content
        return json.loads(content)

    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=60).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
        else:
            return ask


def labels_given(folder: Path) -> dict[str, str]:
    """Return the label of every image in labels.csv, by the name of its file: folders differ between attacks."""
    with open(folder / "labels.csv", newline="") as file:
        return {Path(row["path"]).name: row["label"] for row in csv.DictReader(file)}


@contextlib.contextmanager
def mnist_served() -> Iterator[str]:
    """Serve files as MNIST has them, of few images; yield the address. Their checksums become the published ones."""
    from onsight.data.mnist_svhn_stl10 import LAYOUTS

    layout = LAYOUTS["mnist"]
    files = dict(zip(layout.files, idx_files(layout.side), strict=True))
    md5 = {name: hashlib.md5(data).hexdigest() for name, data in files.items()}
    LAYOUTS["mnist"] = replace(layout, counts=COUNTS, md5=md5, sizes={})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler_of(files)) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def idx_files(side: int) -> Iterator[bytes]:
    """Yield images and labels of training, then of test, always the same."""
    rng = np.random.default_rng(0)
    for count in COUNTS:
        for values in (rng.integers(0, 256, (count, side, side), np.uint8), np.arange(count, dtype=np.uint8) % 10):
            header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
            yield gzip.compress(header + values.tobytes(), mtime=0)


def handler_of(files: Mapping[str, bytes]) -> type[BaseHTTPRequestHandler]:
    """Return what serves these files."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the library's name
            content = files[self.path.strip("/")]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    return Handler
