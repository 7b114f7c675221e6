import pytest

from onsight.cli import demo
from onsight.core.errors import DownloadError
from onsight.spec import PRESETS


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """Train for one epoch only: these tests check the steps of the demo, not its accuracy."""
    monkeypatch.setitem(PRESETS["quick"][1], "epochs", 1)
    monkeypatch.setattr("onsight.training.resolve.SMALL_SET", 1)


def test_without_cifar10_the_demo_says_why_and_uses_digits(monkeypatch):
    said = []

    def unreachable(*args):
        raise DownloadError("Could not reach the server: no route.")

    with monkeypatch.context() as patch:
        patch.setattr(demo, "load_dataset", unreachable)
        assert demo.available(None, True, said.append) == "digits"
    monkeypatch.setattr(demo, "available", lambda *args: "digits")
    run = demo.demo(None, quiet=True, say=said.append)
    text = "\n".join(said)
    assert "CIFAR-10 is not available: Could not reach the server: no route." in text
    assert run.dataset["name"] == "digits"
    assert "test images are classified correctly (95 %" in text
    assert f"onsight predict {run.folder} IMAGE" in text
    assert str(run.report) in text
    assert run.report.exists()
    assert (run.evaluation_folder() / "example.png").exists()
