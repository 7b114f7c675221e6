"""A server as the command line starts it, a client that sends exactly the bytes it is told to send, and a browser."""

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
from pathlib import Path

import pytest
from PIL import Image

AXE = Path(__file__).parents[1] / "web" / "node_modules" / "axe-core" / "axe.min.js"  # `make web` brings it
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
def running(*words, command="serve", token=TOKEN, ready=True):
    """Start `onsight serve`, or another command with a server, on a free port, and end it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "onsight", command, *map(str, words), "--port", "0"],
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


@contextmanager
def opened(browser, client, allowed=r"blob:|console: .*400 \(Bad Request\)", **options):
    """Open the page of a server; fail if it writes to the console, or asks others for anything not `allowed`."""
    context = browser.new_context(**options)
    page, events = context.new_page(), []
    page.on("console", lambda message: events.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: events.append(f"error: {error}"))
    own = f"http://127.0.0.1:{client.port}/"
    page.on("request", lambda each: None if each.url.startswith((own, "data:")) else events.append(each.url))
    try:
        page.goto(f"{own}?token={TOKEN}")
        page.wait_for_selector("body[data-state=ready]", timeout=60_000)
        assert page.url == own  # the token is not in the address any more
        yield page
    finally:
        context.close()
    assert [each for each in events if not re.match(allowed, each)] == []


def check_access(page):
    """Fail if axe-core finds that somebody cannot use the page as it is now; do nothing where it is not installed."""
    if not AXE.is_file():
        return
    page.evaluate(AXE.read_text("utf-8"))
    found = page.evaluate("axe.run()")["violations"]
    assert [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")] == []
