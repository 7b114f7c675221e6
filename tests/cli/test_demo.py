import pytest

from onsight.cli import demo
from onsight.core.errors import DownloadError
from onsight.spec import PRESETS


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """The demo's path is what is tested here, not how well it learns."""
    monkeypatch.setitem(PRESETS["quick"][1], "epochs", 1)
    monkeypatch.setattr("onsight.training.resolve.SMALL_SET", 1)


def test_without_cifar10_it_says_why_and_takes_digits(monkeypatch):
    said = []

    def unreachable(*args):
        raise DownloadError("Could not reach the server: no route.")

    with monkeypatch.context() as patch:
        patch.setattr(demo, "load_dataset", unreachable)
        assert demo.available(None, True, said.append) == "digits"
    monkeypatch.setattr(demo, "available", lambda *args: "digits")
    run = demo.demo(None, quiet=True, say=said.append)
    text = "\n".join(said)
    assert "CIFAR-10 cannot be had: Could not reach the server: no route." in text
    assert run.dataset["name"] == "digits"
    assert "test images right (95 %" in text
    assert f"onsight predict {run.folder} PICTURE" in text
    assert str(run.report) in text
    assert run.report.exists()
    assert (run.evaluation_folder() / "example.png").exists()
