"""What the studio answers, and each row of the security table for servers."""

import http.client
import json
import os
import shutil
import socket

import pytest

from clients import TOKEN, everything, running

HEAD = f"Authorization: Bearer {TOKEN}\r\n"


def read_events(answer, count):
    """Return the next events of a stream, as (name, id, data)."""
    found = []
    while len(found) < count:
        name = number = ""
        while (line := answer.readline().decode().rstrip("\n")) or not name:
            key, _, value = line.partition(": ")
            name = value if key == "event" else name
            number = value if key == "id" else number
            data = value if key == "data" else ""
        found.append((name, number, json.loads(data)))
    return found


def stream(studio, query="", headers=()):
    connection = http.client.HTTPConnection("127.0.0.1", studio.port, timeout=30)
    connection.request("GET", f"/v1/events{query}", headers={"Authorization": f"Bearer {TOKEN}", **dict(headers)})
    return connection, connection.getresponse()


def test_the_table_has_the_runs_their_states_and_commands(studio, folder):
    status, _, answer = studio("GET", "/v1/runs")
    rows = {row["name"]: row for row in answer["runs"]}
    assert (status, answer["folder"]) == (200, str(folder))
    assert {name: row["state"] for name, row in rows.items()} == {
        "first": "trained", "second": "trained", "dead": "stopped",
    }  # fmt: skip
    assert (rows["first"]["done"], rows["dead"]["done"], rows["dead"]["epochs"]) == (8, 3, 8)
    assert 0 <= rows["first"]["test"] <= 1
    assert rows["dead"]["test"] is None
    assert [rows[name]["report"] for name in ("first", "dead")] == [True, False]
    assert rows["dead"]["commands"]["Continue its training"] == f"onsight train --resume {rows['dead']['place']}"
    assert rows["first"]["commands"]["Train it again"].startswith("onsight train toy --model cnn")


def test_a_stream_has_the_table_and_the_histories_and_can_be_resumed(make_runs, tmp_path):
    runs = make_runs(tmp_path / "runs")
    history = runs / "dead" / "history.jsonl"
    with running(runs, command="studio", ready=False) as studio:
        connection, answer = stream(studio, "?run=dead&run=first")
        assert answer.headers["content-type"].startswith("text/event-stream")
        table, dead, first = read_events(answer, 3)
        assert (table[0], len(table[2])) == ("runs", 3)
        assert (dead[2]["run"], dead[2]["again"], len(dead[2]["lines"])) == ("dead", True, 3)
        epochs = [each["epoch"] for each in first[2]["lines"] if each["event"] == "epoch"]
        assert (first[2]["run"], epochs) == ("first", [*range(1, 9)])
        line = json.loads(history.read_text().splitlines()[-1]) | {"epoch": 4, "val_loss": float("nan")}
        with open(history, "a") as file:
            file.write(json.dumps(line) + "\n")
        events = read_events(answer, 2)
        table, added = sorted(events, key=lambda each: each[0], reverse=True)
        assert {row["name"]: row["state"] for row in table[2]}["dead"] == "training"  # somebody writes it
        assert (added[2]["again"], [each["epoch"] for each in added[2]["lines"]]) == (False, [4])
        assert added[2]["lines"][0]["val_loss"] is None
        connection.close()
        connection, answer = stream(studio, "?run=dead&run=first", {"Last-Event-ID": first[1]}.items())
        _, added = read_events(answer, 2)
        assert (added[2]["again"], [each["epoch"] for each in added[2]["lines"]]) == (False, [4])  # only what is new
        connection.close()
        connection, answer = stream(studio, "?run=dead", {"Last-Event-ID": "nonsense"}.items())
        assert read_events(answer, 2)[1][2]["again"]
        shutil.rmtree(runs / "second")  # while somebody looks
        assert [row["name"] for row in read_events(answer, 1)[0][2]] == ["first", "dead"]
        studio.process.terminate()
        assert studio.process.wait(15) == 0  # an open stream does not hold the end up
        connection.close()


def test_streams_are_limited(studio):
    open_ones = []
    for _ in range(33):
        connection = socket.create_connection(("127.0.0.1", studio.port), 20)
        connection.sendall(f"GET /v1/events HTTP/1.1\r\nHost: 127.0.0.1:{studio.port}\r\n{HEAD}\r\n".encode())
        open_ones.append(connection)
        first = connection.recv(15)
    assert first == b"HTTP/1.1 503 Se"
    for connection in open_ones:
        connection.close()


def test_a_report_is_shown_in_a_sandbox(studio, folder):
    status, headers, content = studio("GET", "/runs/first/report")
    assert (status, content) == (200, (folder / "first" / "report.html").read_bytes())
    (policy,) = headers.get_all("content-security-policy")
    assert policy.startswith("sandbox allow-scripts")
    assert "allow-same-origin" not in policy
    assert "connect-src" not in policy
    assert "default-src 'none'" in policy
    assert studio("GET", "/runs/dead/report")[0] == 404


def test_runs_are_compared_by_a_process_of_its_own(studio, folder):
    before = sorted(path for path in folder.rglob("*"))
    status, headers, content = studio("GET", "/compare?run=first&run=second")
    assert status == 200, content
    assert headers["content-security-policy"].startswith("sandbox ")
    assert b"first" in content
    assert b"second" in content
    status, headers, content = studio("GET", "/compare?run=first&run=dead")
    assert (status, headers["content-type"]) == (409, "text/plain; charset=utf-8")
    assert b"has not been evaluated" in content
    assert studio("GET", "/compare?run=first")[0] == 400
    assert studio("GET", "/compare?run=first&run=first")[0] == 400
    assert sorted(path for path in folder.rglob("*")) == before  # it only reads


def test_every_address_needs_the_token_and_its_own_name(studio):
    for path in ("/", "/page.js", "/page.css", "/v1/runs", "/v1/events", "/runs/first/report", "/compare", "/x"):
        assert studio("GET", path, token=None)[0] == 401, path
        assert studio("GET", path, token=TOKEN[:-1] + "x")[0] == 401, path
        assert studio("GET", path, None, {"Host": f"evil.example:{studio.port}"})[0] == 400, path
        assert studio("GET", path, None, {"Origin": "http://evil.example"})[0] == 403, path
        assert studio("GET", path, None, {"Sec-Fetch-Site": "cross-site"})[0] == 403, path
    status, headers, _ = studio("GET", f"/?token={TOKEN}", token=None)
    assert (status, headers["location"]) == (303, "/")
    assert "HttpOnly; SameSite=Strict" in headers["set-cookie"]


def test_nothing_can_be_changed(studio):
    for path in ("/", "/v1/runs", "/v1/events", "/runs/first/report", "/compare"):
        for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            status, headers, _ = studio(method, path)
            assert status == 405, (method, path)
            assert not [name for name in headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "path",
    [
        "/../etc/passwd",
        "/runs/../report",
        "/runs/..%2f..%2fetc/report",
        "/runs/%2e%2e/report",
        "/runs/first%2f..%2fsecond/report",
        "/runs/first/../../etc/passwd",
        "/runs/%00/report",
        "/v1/events?run=../first",
        "/v1/events?run=/etc",
        "/compare?run=first&run=../runs/second",
        "/compare?run=first&run=--out",
        "//etc/passwd",
    ],
)
def test_no_address_reaches_a_file(studio, path):
    head = f"Host: 127.0.0.1:{studio.port}\r\n{HEAD}Connection: close\r\n\r\n"
    answer = studio.raw(f"GET {path} HTTP/1.1\r\n{head}".encode())
    assert answer.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 400 ")), answer


def test_requests_cannot_be_smuggled_and_bodies_are_not_read(studio):
    host = f"Host: 127.0.0.1:{studio.port}\r\n"
    hidden = b"GET /v1/runs HTTP/1.1\r\n\r\n"
    for head in (
        f"{host}{HEAD}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        f"{host}{HEAD}Content-Length: 5\r\nContent-Length: 6\r\n",
        f"{host}{HEAD}Transfer-Encoding: gzip, chunked\r\n",
        f"{host}{host}{HEAD}",
        f"{host}{HEAD}X: {'x' * 20000}\r\n",
    ):
        answer = studio.raw(f"GET / HTTP/1.1\r\n{head}Connection: close\r\n\r\n".encode() + hidden)
        assert answer.startswith(b"HTTP/1.1 400 "), (head[:80], answer[:200])
        assert b'"runs"' not in answer
    with socket.create_connection(("127.0.0.1", studio.port), 20) as connection:  # ten terabytes are announced
        connection.sendall(f"POST / HTTP/1.1\r\n{host}{HEAD}Content-Length: 10000000000000\r\n\r\n".encode())
        assert everything(connection).startswith(b"HTTP/1.1 405 ")
    assert studio("GET", f"/v1/events?{'&'.join(f'run={i}' for i in range(21))}")[0] == 400


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_link_out_of_a_run_is_not_followed(make_runs, tmp_path):
    runs = make_runs(tmp_path / "runs")
    (tmp_path / "secret.txt").write_text("secret")
    (runs / "first" / "report.html").unlink()
    (runs / "first" / "report.html").symlink_to(tmp_path / "secret.txt")
    with running(runs, command="studio", ready=False) as studio:
        assert studio("GET", "/runs/first/report")[0] == 404
        rows = {row["name"]: row["report"] for row in studio("GET", "/v1/runs")[2]["runs"]}
        assert rows == {"first": False, "second": True, "dead": False}


def test_the_token_is_in_no_answer_and_no_log(folder):
    with running(folder, command="studio", ready=False) as studio:
        for path in ("/", "/v1/runs", "/page.js", "/x"):
            assert TOKEN not in str(studio("GET", path)[2])
        studio("GET", f"/?token={TOKEN}x", token=None)
        studio.process.terminate()
        out, err = studio.process.communicate(timeout=30)
        assert TOKEN not in studio.address + out + err
