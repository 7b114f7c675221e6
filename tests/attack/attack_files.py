"""Damage thousands of files from seeds, and record what Onsight does with each.

    python tests/attack/attack_files.py RUN OUT [--kinds picture zip …] [--count 3000] [--minutes 20] [--shard 0/2]

RUN is a finished and evaluated run with a model.tflite. Each kind of file is read by a process of its own, with 2 GiB
of memory and 20 seconds for each file; when it dies, another goes on behind the file. OUT is a folder: KIND.jsonl has
one line per file, and a second call goes on behind the last one.

What counts as a failure: a process that dies or hangs, an exception that is not ours, more than 2 s of CPU time without
a refusal, and a file that is opened outside of the data, the run, the cache and Python's own folders. The program
prints a table, and ends with 1 if there is a failure.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
if str(TESTS) not in sys.path:
    sys.path.insert(0, str(TESTS))

from attack.targets import TARGETS, damaged  # noqa: E402

PATIENCE = 20.0  # seconds for a file
MEMORY = 2 << 30  # bytes of private memory
LONG = 2.0  # seconds of CPU time
FAILURES = ("died", "hung", "traceback", "slow", "outside")


def main() -> None:
    """Attack, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kinds", nargs="*", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--shard", default="0/1")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        work(asked.kinds[0], asked.run.resolve(), asked.out.resolve())
        return
    shard, shards = map(int, asked.shard.split("/"))
    asked.out.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 60 * asked.minutes
    for kind in asked.kinds:
        attack(kind, asked.run.resolve(), asked.out, range(shard, asked.count, shards), until)
    found = results(asked.out)
    sys.stdout.write(table(found))
    sys.exit(any(row["outcome"] in FAILURES for rows in found.values() for row in rows))


def attack(kind: str, run: Path, out: Path, numbers: range, until: float) -> None:
    """Attack with the numbered files that have no line in OUT yet."""
    file = out / f"{kind}.jsonl"
    done = {row["number"] for row in read(file)}
    left = [number for number in numbers if number not in done]
    while left and time.monotonic() < until:
        with tempfile.TemporaryDirectory() as folder, file.open("a") as lines:
            worker = start(kind, run, folder)
            while left and time.monotonic() < until:
                row = ask(worker, left[0])
                lines.write(json.dumps(row) + "\n")
                lines.flush()
                left.pop(0)
                if row["outcome"] in ("died", "hung"):
                    break
            worker.kill()
            worker.wait()
            for pipe in (worker.stdin, worker.stdout):
                pipe.close()


def start(kind: str, run: Path, folder: str) -> subprocess.Popen[bytes]:
    """Start a process that reads damaged files of a kind."""
    words = [sys.executable, __file__, str(run), folder, "--work", "--kinds", kind]
    places = {"ONSIGHT_CACHE": f"{folder}/cache", "ONSIGHT_RUNS": f"{folder}/runs", "HOME": folder}
    errors = open(Path(folder) / "errors.txt", "wb")  # noqa: SIM115 - the process keeps it
    with errors:
        return subprocess.Popen(
            words, env=os.environ | places, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        )


def ask(worker: subprocess.Popen[bytes], number: int) -> dict[str, Any]:
    """Return what happened to one file."""
    line = b""
    try:
        worker.stdin.write(b"%d\n" % number)
        worker.stdin.flush()
        if not select.select([worker.stdout], [], [], PATIENCE)[0]:
            return {"number": number, "outcome": "hung"}
        line = worker.stdout.readline()
    except BrokenPipeError:
        pass
    if not line:
        return {"number": number, "outcome": "died", "what": f"exit code {worker.wait()}"}
    return json.loads(line)


def work(kind: str, run: Path, folder: Path) -> None:
    """Read numbers from standard input; write a line of JSON for what happened to each file."""
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.chdir(folder)  # names without a folder are those of files in an open folder, or lie here
    target = TARGETS[kind]
    examples = target.examples(folder, run)
    good = folder / f"good{examples[0][0]}".replace("/", "%")
    good.write_bytes(examples[0][1])
    target.use(good, run)  # a good file must be read; and what is imported now is not counted
    system = ("/proc", "/sys", "/dev", "/usr")
    outside = watch([folder, run, *sys.path, sys.prefix, sys.base_prefix, TESTS.parent, *system])
    for line in sys.stdin:
        number = int(line)
        suffix, data = damaged(kind, examples, number)
        path = folder / f"case{suffix}".replace("/", "%")
        path.write_bytes(data)
        outside.clear()
        started, outcome, what = time.process_time(), *happens(target, path, run)
        seconds = time.process_time() - started
        if outside:
            outcome, what = "outside", ", ".join(sorted(outside))
        elif outcome == "answered" and seconds > LONG:
            outcome = "slow"
        answers.write(json.dumps({"number": number, "outcome": outcome, "cpu": round(seconds, 3), "what": what}) + "\n")
        answers.flush()


def happens(target: Any, path: Path, run: Path) -> tuple[str, str]:
    """Return what happens to a file, and the message if there is one."""
    from onsight.core.errors import OnsightError

    try:
        target.use(path, run)
    except OnsightError as error:
        return "refused", str(error)[:300]
    except BaseException:
        return "traceback", traceback.format_exc()[-3000:]
    return "answered", ""


def watch(allowed: list[Any]) -> set[str]:
    """Return a set that collects the paths opened outside the allowed folders from now on."""
    inside = tuple(os.path.realpath(each) for each in allowed if str(each))
    found: set[str] = set()

    def hook(event: str, about: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(about[0], str | bytes | os.PathLike):
            path = os.path.realpath(os.fsdecode(about[0]))
            if not path.startswith(inside):
                found.add(path)

    sys.addaudithook(hook)
    return found


def read(file: Path) -> list[dict[str, Any]]:
    """Return the lines of a file of results, without one that a kill has cut off."""
    rows = []
    for line in file.read_text().splitlines() if file.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def results(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the results of every kind in a folder."""
    return {kind: rows for kind in TARGETS if (rows := read(out / f"{kind}.jsonl"))}


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """Return a Markdown table of results."""
    titles = ("kind of file", "damaged", "refused", "read", "died", "hung", "other exceptions", "slow", "outside")
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for kind, rows in found.items():
        counts = Counter(row["outcome"] for row in rows)
        columns = ("refused", "answered", "died", "hung", "traceback", "slow", "outside")
        lines.append(" | ".join([f"| {kind}", f"{len(rows):,}", *(f"{counts[each]:,}" for each in columns)]) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
