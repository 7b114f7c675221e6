import pytest

from onsight.core import ray_cluster
from onsight.core.errors import SpecError
from onsight.core.ray_cluster import connected


def test_what_is_no_cluster_is_refused():
    message = "--on ssh://host names no cluster: give ray://HOST:PORT"
    with pytest.raises(SpecError, match=message), connected("ssh://host", show_workers=False):
        pass


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(ray_cluster, "find_spec", lambda name: None)
    message = r"needs Ray, which is not installed. .*onsight\[scale\]"
    with pytest.raises(SpecError, match=message), connected("ray", show_workers=False):
        pass
