"""A server as `onsight serve` starts it, and a client that sends exactly the bytes it is told to send."""

import http.client
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from PIL import Image

TOKEN = "test-token-0123456789-abcdefghijklm"


class Client:
    """Talks to one server."""

    def __init__(self, process, port):
        self.process, self.port = process, port

    def raw(self, content, timeout=20):
        """Send bytes on a connection of their own; return everything that comes back."""
        with socket.create_connection(("127.0.0.1", self.port), timeout) as connection:
            connection.sendall(content)
            return everything(connection)

    def __call__(self, method, path, body=None, headers=None, token=TOKEN):
        """Return status, headers and body; JSON is read."""
        given = {"Authorization": f"Bearer {token}"} if token else {}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(method, path, body, given | (headers or {}))
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if answer.headers["content-type"] == "application/json":
            content = json.loads(content)
        return answer.status, answer.headers, content

    def predict(self, data, query="", **more):
        return self("POST", f"/v1/predict{query}", data, {"Content-Type": "image/png"}, **more)

    def post(self, path, value):
        return self("POST", path, json.dumps(value), {"Content-Type": "application/json"})


def everything(connection):
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except (ConnectionResetError, TimeoutError):
        pass
    return b"".join(parts)


@contextmanager
def running(*words, token=TOKEN, ready=True):
    """Start `onsight serve` on a free port, and end it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "onsight", "serve", *map(str, words), "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | ({"ONSIGHT_TOKEN": token} if token else {}),
    )  # fmt: skip
    try:
        line = process.stdout.readline()
        found = re.search(r":(\d+)/", line)
        assert found, process.stderr.read()
        client = Client(process, int(found[1]))
        client.address = line.strip()
        if ready:
            wait_for(lambda: client("GET", "/readyz", token=None)[0] == 200)
        yield client
    finally:
        process.terminate()
        try:
            client_end = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            client_end = process.communicate()
    assert "Traceback" not in client_end[1], client_end[1]


def wait_for(condition, seconds=60):
    for _ in range(int(seconds / 0.05)):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("it did not happen in time")


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
