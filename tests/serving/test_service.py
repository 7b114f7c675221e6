import asyncio
import socket

import pytest

from onsight.serving import child, service
from onsight.serving.models import Models
from onsight.serving.service import Service


async def no_page(scope, receive, send):
    """An application that nobody asks."""


@pytest.mark.parametrize("ready", [True, False])
def test_a_server_ends_after_its_child_processes(runs, monkeypatch, ready):
    """On a busy machine a killed process takes a while to end. The event loop must not be closed before."""
    started, spawn, end = [], asyncio.create_subprocess_exec, child.end

    async def noted(*words, **more):
        started.append(await spawn(*words, **more))
        return started[-1]

    async def slow(process):
        await asyncio.sleep(0.3)
        await end(process)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", noted)
    for module in (child, service):
        monkeypatch.setattr(module, "end", slow)

    async def main():
        models = Models([str(runs / "toy"), str(runs / "knowing")], False, lambda size: None)
        running = Service(no_page, models)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            serving = asyncio.create_task(running.run_on(listening))
            while not (models.ready if ready else started):
                await asyncio.sleep(0.01)
            running.stop()
            await serving

    asyncio.run(main())
    assert len(started) >= 2
    assert all(each.returncode is not None for each in started)
