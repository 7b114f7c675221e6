"""Measure `onsight serve` beside other servers with the same engine: CPU per request, latency, memory, overload.

    python benchmarks/serve.py RUN IMAGES [--requests 20000] [--rounds 3] [--others fastapi flask litserve]
    python benchmarks/serve.py RUN IMAGES --memory 1000000
    python benchmarks/serve.py RUN IMAGES --overload 600

RUN is a run with a model.tflite, IMAGES a folder of image files. Everything is on 127.0.0.1, with 64 connections that
each wait for their answer. CPU time is that of the server's process and its children, from /proc, so other programs
disturb it less than they disturb requests per second. Rounds are interleaved: the engine alone, Onsight, the others.
The others run the same decoder and engine in the plainest way that their documentation shows, without token, checks or
metrics. One that is not installed is left out and named.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import importlib.util
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TOKEN = "benchmark-token-0123456789abcdefgh"
CONNECTIONS = 64
TICK = os.sysconf("SC_CLK_TCK")
PLAIN = """
import sys
import numpy as np
from onsight.imaging import decode
from onsight.inference.engines import open_engine
from onsight.runs.run import open_run
engine = open_engine(open_run(sys.argv[1]))
def classify(data):
    shares = engine.probabilities(decode.load(data, engine.size, engine.fit)[None], threads=1)[0]
    return [{"class": engine.classes[i], "probability": float(shares[i])} for i in np.argsort(-shares)[:3]]
"""
OTHERS = {
    "fastapi": PLAIN
    + """
import uvicorn
from fastapi import FastAPI, Request
app = FastAPI()
@app.post("/v1/predict")
async def predict(request: Request):
    return {"top": classify(await request.body())}
uvicorn.run(app, port=int(sys.argv[2]), access_log=False, log_level="error")
""",
    "flask": PLAIN
    + """
import logging
from flask import Flask, request
logging.getLogger("werkzeug").setLevel(logging.ERROR)
app = Flask("plain")
@app.post("/v1/predict")
def predict():
    return {"top": classify(request.get_data())}
app.run(port=int(sys.argv[2]), threaded=True)
""",
    "litserve": PLAIN
    + """
import base64
import litserve
class Api(litserve.LitAPI):
    def setup(self, device): pass
    def decode_request(self, request): return base64.b64decode(request["image"])
    def predict(self, data): return classify(data)
    def encode_response(self, top): return {"top": top}
if __name__ == "__main__":
    litserve.LitServer(Api(api_path="/v1/predict"), accelerator="cpu").run(
        port=int(sys.argv[2]), log_level="error", generate_client_file=False
    )
""",
}


def processes(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:
            continue
        parents.setdefault(int(text.rsplit(")", 1)[1].split()[1]), []).append(int(path.parent.name))
    found = [pid]
    for each in found:
        found += parents.get(each, [])
    return found


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and its descendants."""
    total = 0
    for each in processes(pid):
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def memory(pid: int) -> float:
    """Return the memory of a process and its descendants in MB, whatever else runs: a page of a file counts once.

    A file that several of them map counts as in the process that has most of its pages in memory.
    """
    anonymous = 0
    files: dict[str, int] = {}
    for each in processes(pid):
        own: dict[str, int] = defaultdict(int)
        try:
            lines = Path(f"/proc/{each}/smaps").read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            key, *values = line.split()
            if "-" in key:
                name = values[-1]
            elif key == "Rss:":
                own[name] += int(values[0])
            elif key == "Anonymous:":
                own[name] -= int(values[0])
                anonymous += int(values[0])
        files |= {name: max(size, files.get(name, 0)) for name, size in own.items()}
    return (anonymous + sum(files.values())) * 1024 / 1e6


@contextmanager
def running(words: list[str], port: int) -> Iterator[int]:
    """Start a server, wait until it answers on its port, and end it."""
    environment = os.environ | {"ONSIGHT_TOKEN": TOKEN}
    process = subprocess.Popen([sys.executable, *words], env=environment, stdout=subprocess.DEVNULL)
    try:
        for _ in range(600):
            if process.poll() is not None:
                raise SystemExit(f"{words[:3]} ended with {process.returncode}")
            if asyncio.run(answers(port)):
                break
            time.sleep(0.2)
        yield process.pid
    finally:
        descendants = processes(process.pid)[1:]
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
        for each in descendants:  # LitServe leaves some
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)


async def answers(port: int) -> bool:
    """Return whether a server is warm."""
    try:
        result = await load(port, [b"x"], 1, 1, path="/readyz", method="GET")
    except OSError:
        return False
    return not {503, 0} & {*result.codes}


class Result:
    """What a load has shown."""

    def __init__(self) -> None:
        self.codes: Counter[int] = Counter()
        self.seconds: list[float] = []  # of answers with 200


async def load(
    port: int,
    bodies: list[bytes],
    requests: int,
    connections: int,
    path: str = "/v1/predict",
    method: str = "POST",
    until: float | None = None,
    kind: str = "image/jpeg",
) -> Result:
    """Send requests on connections that each wait for their answer."""
    result = Result()

    async def one(number: int, count: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for turn in range(count):
                if until and time.monotonic() > until:
                    break
                body = bodies[(number * 31 + turn) % len(bodies)]
                head = (
                    f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {TOKEN}\r\n"
                    f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
                )
                started = time.perf_counter()
                writer.write(head.encode() + body)
                answer = await reader.readuntil(b"\r\n\r\n")
                code = int(answer[9:12])
                length = answer.lower().split(b"content-length:")[1].split(b"\r\n")[0]
                await reader.readexactly(int(length))
                if b"\r\nconnection: close" in answer.lower():  # Flask's own server: a connection per request
                    writer.close()
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                result.codes[code] += 1
                if code == 200:
                    result.seconds.append(time.perf_counter() - started)
        except (asyncio.IncompleteReadError, ConnectionError):
            result.codes[0] += 1
        finally:
            writer.close()

    await asyncio.gather(*(one(number, requests // connections) for number in range(connections)))
    return result


def percentile(seconds: list[float], share: float) -> float:
    """Return a percentile in milliseconds."""
    return sorted(seconds)[int(share * (len(seconds) - 1))] * 1000 if seconds else float("nan")


def engine_alone(run: str, bodies: list[bytes], requests: int) -> float:
    """Return the CPU milliseconds per image of decoder and engine, in batches of 16 on one thread."""
    code = PLAIN + (
        "import time, pickle\n"
        "bodies, requests = pickle.load(sys.stdin.buffer)\n"
        "def batch(at): return np.stack([decode.load(bodies[(at + i) % len(bodies)], engine.size, engine.fit)"
        " for i in range(16)])\n"
        "engine.probabilities(batch(0), threads=1)\n"
        "started = time.process_time()\n"
        "for at in range(0, requests, 16): engine.probabilities(batch(at), threads=1)\n"
        "print((time.process_time() - started) / requests * 1000)\n"
    )
    import pickle

    done = subprocess.run(
        [sys.executable, "-c", code, run], input=pickle.dumps((bodies, requests)), capture_output=True, check=True
    )
    return float(done.stdout)


def free_port() -> int:
    """Return a port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
    return port


def commands(run: str, others: list[str], folder: Path) -> dict[str, Callable[[int], list[str]]]:
    """Return for each server the words that start it on a port. Scripts are written into a folder."""
    found = {"onsight": lambda port: ["-m", "onsight", "serve", run, "--port", str(port)]}
    for name in others:
        if importlib.util.find_spec(name):
            script = folder / f"plain_{name}.py"
            script.write_text(OTHERS[name])
            found[name] = lambda port, script=script: [str(script), run, str(port)]
        else:
            print(f"{name} is not installed and was left out")
    return found


def compare(run: str, bodies: list[bytes], requests: int, rounds: int, others: list[str], folder: Path) -> None:
    """Print CPU per request, requests per second and latency of each server."""
    rows: dict[str, list[tuple[float, float, float, float]]] = {}
    alone = []
    servers = commands(run, others, folder)
    for turn in range(rounds):
        alone.append(engine_alone(run, bodies, min(requests, 4800)))
        for name, words in servers.items():
            port = free_port()
            with running(words(port), port) as pid:
                sent, kind = (in_json(bodies), "application/json") if name == "litserve" else (bodies, "image/jpeg")
                asyncio.run(load(port, sent, 640, CONNECTIONS, kind=kind))
                before, started = cpu_seconds(pid), time.perf_counter()
                result = asyncio.run(load(port, sent, requests, CONNECTIONS, kind=kind))
                seconds, cpu = time.perf_counter() - started, cpu_seconds(pid) - before
                count = sum(result.codes.values())
                rows.setdefault(name, []).append(
                    (
                        cpu / count * 1000,
                        count / seconds,
                        percentile(result.seconds, 0.5),
                        percentile(result.seconds, 0.99),
                    )
                )
                print(turn, name, dict(result.codes), [f"{value:.3g}" for value in rows[name][-1]], flush=True)
    base = statistics.median(alone)
    print(f"\n{os.cpu_count()} cores; {requests:,} requests per round; medians of {rounds} rounds")
    print(f"| engine alone, batches of 16 | {base:.3f} ms | 1.00 | | | |")
    for name, found in rows.items():
        cpu, rate, half, most = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"| {name} | {cpu:.3f} ms | {cpu / base:.2f} | {rate:,.0f}/s | {half:.1f} ms | {most:.1f} ms |")


def in_json(bodies: list[bytes]) -> list[bytes]:
    """Return images as LitServe takes them: it reads no raw bodies."""
    return [json.dumps({"image": base64.b64encode(body).decode()}).encode() for body in bodies]


def memory_over(run: str, bodies: list[bytes], requests: int) -> None:
    """Print the memory as requests go by."""
    port = free_port()
    with running(commands(run, [], Path())["onsight"](port), port) as pid:
        time.sleep(10)  # validation's answers are computed in a process of their own, which ends
        for part in range(11):
            print(
                f"{part * requests // 10:,} requests: {memory(pid):.1f} MB in {len(processes(pid))} processes",
                flush=True,
            )
            if part < 10:
                asyncio.run(load(port, bodies, requests // 10, CONNECTIONS))


def overload(run: str, bodies: list[bytes], seconds: float) -> None:
    """Print latency when idle, then codes and latency with ten times as many clients as are served, and bad ones."""
    port = free_port()
    with running(commands(run, [], Path())["onsight"](port), port) as pid:
        idle = asyncio.run(load(port, bodies, 500, 1))
        busy = asyncio.run(load(port, bodies, 6400, CONNECTIONS))
        before = memory(pid)
        result = asyncio.run(pressed(port, bodies, time.monotonic() + seconds))
        print(f"one client:  p99 {percentile(idle.seconds, 0.99):.1f} ms")
        print(f"64 clients:  p99 {percentile(busy.seconds, 0.99):.1f} ms, {dict(busy.codes)}")
        print(f"overload:    p99 {percentile(result.seconds, 0.99):.1f} ms of accepted ones, {dict(result.codes)}")
        time.sleep(12)
        print(f"memory:      {before:.1f} MB before, {memory(pid):.1f} MB after, {len(processes(pid))} processes")
        print(f"afterwards:  {dict(asyncio.run(load(port, bodies, 100, 1)).codes)}")


async def pressed(port: int, bodies: list[bytes], until: float) -> Result:
    """Send more than can be answered, with slow, silent and malformed clients beside it."""
    total = Result()

    async def steady() -> None:
        while time.monotonic() < until:
            try:
                part = await load(port, bodies, 8 * 110, 110, until=until)
            except OSError:
                await asyncio.sleep(0.1)
                continue
            total.codes.update(part.codes)
            total.seconds += part.seconds[:: max(1, len(part.seconds) // 1000)]

    async def bad(content: bytes, pause: float) -> None:
        while time.monotonic() < until:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(content)
                await asyncio.sleep(pause)
                writer.close()
            except OSError:
                await asyncio.sleep(0.1)

    await asyncio.gather(
        steady(),
        *(bad(b"", 20) for _ in range(5)),
        *(bad(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nx", 20) for _ in range(5)),
        *(bad(os.urandom(200), 0.05) for _ in range(5)),
    )
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("images", type=Path)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--others", nargs="*", default=list(OTHERS), choices=list(OTHERS))
    parser.add_argument("--memory", type=int, help="requests over which memory is measured")
    parser.add_argument("--overload", type=float, help="seconds of overload")
    asked = parser.parse_args()
    files = sorted(path for path in asked.images.rglob("*") if path.suffix in (".jpg", ".jpeg", ".png"))[:500]
    bodies = [path.read_bytes() for path in files]
    if asked.memory:
        memory_over(asked.run, bodies, asked.memory)
    elif asked.overload:
        overload(asked.run, bodies, asked.overload)
    else:
        with tempfile.TemporaryDirectory() as folder:
            compare(asked.run, bodies, asked.requests, asked.rounds, asked.others, Path(folder))


if __name__ == "__main__":
    main()
