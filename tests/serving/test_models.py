import asyncio
import shutil
import signal
import threading
from types import SimpleNamespace

import pytest

from clients import png, running, wait_for
from onsight.core.errors import SpecError
from onsight.serving.models import Models, Shadow, named


def test_names(runs):
    assert named("a=b=c") == ("a", "b=c")
    assert named(str(runs / "toy")) == ("toy", str(runs / "toy"))
    with pytest.raises(SpecError, match="called 'toy'"):
        Models([str(runs / "toy"), str(runs / "toy")], False, print)
    with pytest.raises(SpecError, match="--shadow needs a second run"):
        Models([str(runs / "toy")], True, print)


def test_a_shadow_answers_too_and_differences_are_counted(runs, red):
    import numpy as np

    with running(f"champion={runs / 'toy'}", f"challenger={runs / 'knowing'}", "--shadow") as client:
        noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        for data in (red, png(noise), b"x"):
            client.predict(data)

        def shadow():
            (found,) = client("GET", "/v1/status")[2]["shadows"]
            return found

        wait_for(lambda: shadow()["compared"] == 2)
        found = shadow()
        assert found["model"] == "challenger"
        assert found["differ"] == 0  # the same network
        assert found["mean_difference"] < 1e-4
        assert found["left_out"] == 0
        assert client("GET", "/v1/status")[2]["models"]["challenger"]["images"] == 2
        text = client("GET", "/metrics")[2].decode()
        assert 'onsight_shadow_images_total{model="challenger",result="same"} 2.0' in text
        assert client.predict(red)[2]["model"] == "champion"
        wait_for(lambda: shadow()["compared"] == 3)
        arrays = {"instances": noise[None].tolist()}
        assert client.post("/v1/models/champion:predict", arrays)[0] == 200
        wait_for(lambda: shadow()["compared"] == 4)  # both models take arrays of 32 pixels


def test_arrays_of_another_size_are_left_out():
    shadow = Shadow(SimpleNamespace(ready=True, facts={"size": 8}))
    array = SimpleNamespace(kind="pixels")
    shadow.ask([array, array], [{"top": []}, {"error": {}}], {"size": 32, "classes": ["a"]})
    assert (shadow.left_out, shadow.compared) == (1, 0)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_a_run_is_replaced_without_losing_a_request(runs, red, tmp_path):
    (tmp_path / "current").symlink_to(runs / "toy")
    with running(f"m={tmp_path / 'current'}") as client:
        codes, stop = [], threading.Event()

        def asking():
            while not stop.is_set():
                codes.append(client.predict(red)[0])

        threads = [threading.Thread(target=asking) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            (tmp_path / "next").symlink_to(runs / "knowing")
            (tmp_path / "next").replace(tmp_path / "current")
            client.process.send_signal(signal.SIGHUP)
            wait_for(lambda: client("GET", "/v1/status")[2]["models"]["m"]["run"] == "knowing")
            (tmp_path / "current").unlink()
            client.process.send_signal(signal.SIGHUP)  # the run is gone: the one that answers goes on
            for _ in range(10):
                assert client.predict(red)[0] == 200
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert codes.count(200) == len(codes) > 20
        client.process.terminate()
        _, err = client.process.communicate(timeout=30)
        assert f"m answers with {runs / 'knowing'} now" in err
        assert "m was not reloaded" in err


def test_a_copy_of_a_run_can_be_served_after_it_was_moved(runs, tmp_path):
    shutil.copytree(runs / "toy", tmp_path / "moved")
    models = Models([str(tmp_path / "moved")], False, print)

    async def main():
        await models.first.start()
        assert models.ready
        await models.first.close()

    asyncio.run(main())
