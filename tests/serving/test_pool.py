import asyncio
import os
import signal

import pytest

from onsight.core.errors import RunError
from onsight.serving import pool as pools
from onsight.serving.child import started
from onsight.serving.pool import TROUBLE, Item, Pool
from onsight.serving.refusals import Refused


def run(body, folder, threads=1, **more):
    """Run a test with a started pool, and end the pool."""
    workers = []

    async def noted(*words):
        child = await started(*words)
        workers.append(child.process)
        return child

    async def main():
        pool = Pool(str(folder), threads, **more)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pools, "started", noted)
            await pool.start()
            try:
                async with asyncio.timeout(60):
                    return await body(pool, workers)
            finally:
                await pool.close()
                assert all(worker.returncode is not None for worker in workers)

    return asyncio.run(main())


def best(answers):
    return [answer["top"][0][0] if "top" in answer else answer["error"] for answer, _ in answers]


def test_images_are_answered_in_batches(runs, red):
    sizes = []

    async def body(pool, workers):
        assert pool.facts["engine"] == "litert"
        answers = await asyncio.gather(*(pool.ask([Item(red)]) for _ in range(50)))
        assert len({str(answer) for answer in answers}) == 1
        both = await pool.ask([Item(red, full=True), Item(b"x"), Item(bytes(32 * 32 * 3), "pixels")])
        assert len(both[0][1]) == 4 * 3
        assert "error" in both[1][0]
        assert pool.working == 0

    run(body, runs / "toy", noted=sizes.append)
    assert sum(sizes) == 53
    assert max(sizes) == 16


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot stop a process")
@pytest.mark.parametrize("number", ["SIGKILL", "SIGSTOP"])
def test_a_worker_that_dies_or_hangs_is_replaced_and_its_images_are_answered(runs, red, monkeypatch, number):
    monkeypatch.setattr(pools, "TIME_LIMIT", 3.0)

    async def body(pool, workers):
        expected = best(await pool.ask([Item(red)]))
        workers[0].send_signal(getattr(signal, number))
        found = await asyncio.gather(*(pool.ask([Item(red)]) for _ in range(20)))
        assert [best(each) for each in found] == [expected] * 20
        assert len(workers) == 2
        assert await workers[0].wait() == -signal.SIGKILL

    run(body, runs / "toy")


@pytest.mark.parametrize("threads", [1, 2])
def test_an_image_that_stops_the_worker_fails_alone(runs, red, monkeypatch, threads):
    exchange = pools.exchange

    async def stopped(worker, batch):
        if any(item.data == b"poison" for item in batch):
            await worker.end()  # whatever else it has is lost, too
        await exchange(worker, batch)

    monkeypatch.setattr(pools, "exchange", stopped)

    async def body(pool, workers):
        answers = best(await pool.ask([Item(red), Item(b"poison"), *(Item(red) for _ in range(20))]))
        assert answers[1] == TROUBLE
        assert len(set(answers[:1] + answers[2:])) == 1
        assert answers[0] != TROUBLE

    run(body, runs / "toy", threads=threads)


def test_a_full_queue_refuses_and_a_late_answer_is_a_504(monkeypatch):
    monkeypatch.setattr(pools, "DEADLINE", 0.2)

    async def main():
        pool = Pool("nothing", 1, queue=2)  # nobody works
        waiting = [asyncio.create_task(pool.ask([Item(b"")])) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Refused) as busy:
            await pool.ask([Item(b"")])
        assert (busy.value.status, busy.value.headers) == (429, {"Retry-After": "1"})
        for each in await asyncio.gather(*waiting, return_exceptions=True):
            assert each.status == 504
        assert all(item.answer.done() for item in pool.waiting)  # a worker would skip them

    asyncio.run(main())


def test_draining_answers_what_waits(runs, red):
    async def body(pool, workers):
        asked = [asyncio.create_task(pool.ask([Item(red)])) for _ in range(30)]
        await asyncio.sleep(0)
        await pool.drain()
        assert len({str(await each) for each in asked}) == 1

    run(body, runs / "toy")


def test_a_run_that_cannot_be_opened_is_an_error_with_its_reason(tmp_path):
    with pytest.raises(RunError, match="is not a run"):
        run(None, tmp_path)


def test_a_worker_does_not_know_the_token(runs, red, monkeypatch):
    monkeypatch.setenv("ONSIGHT_TOKEN", "secret")

    async def body(pool, workers):
        with open(f"/proc/{workers[0].pid}/environ", "rb") as file:
            content = file.read()
        assert b"PATH=" in content
        assert b"ONSIGHT_TOKEN" not in content

    if os.path.exists("/proc/self/environ"):
        run(body, runs / "toy")


@pytest.mark.backend
def test_a_run_without_litert_is_answered_by_keras_in_one_worker(toy_run, red, tmp_path):
    import shutil
    from dataclasses import replace

    import onsight
    from onsight.models.model_file import read_description, write_description

    folder = tmp_path / "keras"
    shutil.copytree(toy_run.folder, folder)
    (folder / "model" / "model.tflite").unlink()
    write_description(folder / "model", replace(read_description(folder / "model"), litert_sha256=None))

    async def body(pool, workers):
        assert pool.facts["engine"].startswith("keras on ")
        assert len(pool.tasks) == 1
        answers = await pool.ask([Item(red, top=3) for _ in range(5)])
        assert len({str(answer) for answer, _ in answers}) == 1
        (expected,) = onsight.predict(folder, red)
        assert [pool.facts["classes"][index] for index, _ in answers[0][0]["top"]] == [name for name, _ in expected.top]

    run(body, folder, threads=2)
