import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from onsight.core import threads as threads_module
from onsight.core.errors import DataError, ImageError
from onsight.core.threads import each
from onsight.data import pixel_cache
from onsight.data.built_in import from_arrays
from onsight.data.load import load_dataset
from onsight.data.pixel_cache import check_unchanged, clear_cache, hash_rows, load_pixels, median_side
from onsight.imaging import decode
from onsight.imaging.containers import NO_HEIC


@pytest.fixture
def photos(draw_photos, tmp_path, monkeypatch):
    """Create a folder of 40 images of 40 x 30 px in two classes, and an empty cache."""
    monkeypatch.setenv("ONSIGHT_CACHE", str(tmp_path / "cache"))
    return draw_photos(("cat", "dog"), count=20, suffix="png")


def test_images_are_decoded_once_and_mapped(photos, monkeypatch):
    first = load_pixels(load_dataset(photos), 16)
    assert first.images.shape == (40, 16, 16, 3)
    assert isinstance(first.images, np.memmap)
    assert not first.images.flags.writeable
    assert len(set(first.hashes.tolist())) == 40

    monkeypatch.setattr(pixel_cache.decode, "load_and_whole", lambda *_: pytest.fail("an image was decoded again"))
    second = load_pixels(load_dataset(photos), 16)
    assert np.array_equal(first.images, second.images)
    assert np.array_equal(first.hashes, second.hashes)


def replaced(path, colour):
    """Replace a picture by another one with the same size and modification time."""
    before = path.stat()
    picture = path.with_name("new")
    Image.fromarray(np.full((30, 40, 3), colour, np.uint8)).save(picture, "PNG")
    picture.write_bytes(picture.read_bytes().ljust(before.st_size, b"\0"))
    os.utime(picture, ns=(before.st_atime_ns, before.st_mtime_ns))
    picture.replace(path)
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_a_file_that_was_replaced_is_decoded_again(photos):
    before = load_pixels(load_dataset(photos), 16)
    replaced(photos / "cat" / "0.png", 7)
    after = load_pixels(load_dataset(photos), 16)
    assert (after.images[0] == 7).all()
    assert not np.array_equal(before.images[0], after.images[0])


def test_what_is_scored_is_what_lies_in_the_files(photos, monkeypatch):
    """Even if nothing in the file system shows that a file was replaced."""
    monkeypatch.setattr("onsight.data.folder.stamp", lambda status: str(status.st_size))
    dataset = load_dataset(photos)
    pixels = load_pixels(dataset, 16)
    index = np.arange(len(dataset))
    check_unchanged(dataset, pixels, index)
    replaced(photos / "cat" / "0.png", 7)
    with pytest.raises(DataError, match=r"1 image of .* changed after the decoded .*cat/0\.png.*clear-cache"):
        check_unchanged(load_dataset(photos), load_pixels(load_dataset(photos), 16), index)
    check_unchanged(load_dataset(photos), pixels, index[1:])
    check_unchanged(load_dataset("toy"), pixels, index)  # arrays have no files


def test_the_headers_are_kept(photos):
    dataset = load_dataset(photos)
    found = load_pixels(dataset, 16).headers
    assert found.tolist() == [list(decode.header(dataset.read(i))) for i in range(len(dataset))]
    toy = load_dataset("toy")
    side = toy.images.shape[1]
    for size in (side, side // 2):
        assert load_pixels(toy, size).headers.tolist() == [[side, side, 1]] * len(toy)


def test_a_changed_file_is_decoded_again(photos):
    before = load_pixels(load_dataset(photos), 16)
    Image.fromarray(np.full((30, 40, 3), 7, np.uint8)).save(photos / "cat" / "0.png")
    after = load_pixels(load_dataset(photos), 16)
    assert not np.array_equal(before.images[0], after.images[0])
    assert (after.images[0] == 7).all()


def test_identical_images_have_equal_hashes(photos):
    (photos / "dog" / "copy.png").write_bytes((photos / "cat" / "3.png").read_bytes())
    dataset = load_dataset(photos)
    hashes = dict(zip(dataset.names, load_pixels(dataset, 16).hashes.tolist(), strict=True))
    assert hashes["dog/copy.png"] == hashes["cat/3.png"]


def test_broken_images_are_skipped_up_to_a_limit(photos):
    for i in range(3):
        path = photos / "cat" / f"{i}.png"
        path.write_bytes(path.read_bytes()[:200])
    dataset = load_dataset(photos)
    found = load_pixels(dataset, 16)
    assert {dataset.names[index] for index in found.broken} == {"cat/0.png", "cat/1.png", "cat/2.png"}
    assert all(found.broken.values())
    (photos / "dog" / "0.png").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"4 of 40 images of photos cannot be read[\s\S]*cat/0.png: "):
        load_pixels(load_dataset(photos), 16)
    assert (photos / "dog" / "0.png").read_bytes() == b"nonsense"
    assert len(load_pixels(load_dataset(photos), 16, pass_over_all=True).broken) == 4


def test_an_interrupted_fill_leaves_nothing(photos, tmp_path, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pixel_cache.decode, "load_and_whole", stop)
        with pytest.raises(KeyboardInterrupt):
            load_pixels(load_dataset(photos), 16)
    assert [path.suffix for path in (tmp_path / "cache" / "pixels").iterdir()] in ([".lock"], [])
    load_pixels(load_dataset(photos), 16)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot reserve space")
def test_a_full_disk_is_an_error_not_a_crash(photos, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(DataError, match=r"disk that holds .* is full: 40 images of 16 px take 0 MB.*ONSIGHT_CACHE"):
            load_pixels(load_dataset(photos), 16)
    assert not [path for path in (tmp_path / "cache" / "pixels").iterdir() if path.is_dir()]
    load_pixels(load_dataset(photos), 16)


def test_two_processes_do_the_work_once(photos, tmp_path):
    code = (
        "from onsight.data.load import load_dataset; from onsight.data.pixel_cache import load_pixels; "
        f"print(load_pixels(load_dataset({str(photos)!r}), 16).images.sum())"
    )
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    sums = {process.communicate()[0] for process in both}
    assert len(sums) == 1
    assert sums != {""}
    assert len([path for path in (tmp_path / "cache" / "pixels").iterdir() if path.is_dir()]) == 1


def test_arrays_of_the_right_size_are_used_as_they_are():
    toy = load_dataset("toy")
    found = load_pixels(toy, 24)
    assert found.images is toy.images
    assert load_pixels(toy, 32).images.shape == (240, 32, 32, 3)
    # The hash of an image does not depend on the size to which it is resized.
    assert np.array_equal(found.hashes, load_pixels(toy, 32).hashes)
    assert np.array_equal(found.hashes, hash_rows(toy.images))


def test_median_side(photos):
    assert median_side(load_dataset(photos)) == 30
    assert median_side(load_dataset(photos), fit="pad") == 40
    assert median_side(load_dataset("digits")) == 8


def test_the_cache_can_be_cleared(photos):
    load_pixels(load_dataset(photos), 16)
    assert clear_cache() > 40 * 16 * 16 * 3
    assert clear_cache() == 0


@pytest.mark.slow
def test_sixty_thousand_files(real_data, tmp_path, monkeypatch):
    monkeypatch.setenv("ONSIGHT_CACHE", str(tmp_path))
    dataset = load_dataset(real_data / "cifar10-folders")
    found = load_pixels(dataset, 32)
    assert not found.broken
    for index in (0, 12_345, 59_999):
        assert np.array_equal(found.images[index], decode.load(dataset.read(index), 32))


@pytest.mark.parametrize("slow", [-1.0, 100.0], ids=["large images", "small images"])
@pytest.mark.parametrize("count", [0, 5, 300])
def test_each_reads_every_index_once(slow, count, monkeypatch):
    seen, threads = [], set()
    monkeypatch.setattr(threads_module, "SLOW", slow)  # seconds per image, so that no image is, or every one

    def read(index):
        time.sleep(0.001)
        seen.append(index)
        threads.add(threading.get_ident())

    done = list(each(read, count))
    assert sorted(seen) == list(range(count))
    assert done[-1] == count
    assert (len(threads) > 1) == (slow < 0 and count == 300)


def test_each_fit_has_a_cache_of_its_own(photos, tmp_path):
    dataset = load_dataset(photos)
    squares = load_pixels(dataset, 16)
    whole = load_pixels(dataset, 16, fit="pad")
    assert len(list((tmp_path / "cache" / "pixels").glob("*/images.npy"))) == 2
    for index in range(len(dataset)):
        assert np.array_equal(squares.images[index], decode.load(dataset.read(index), 16))
        assert np.array_equal(whole.images[index], decode.load(dataset.read(index), 16, "pad"))
    assert np.array_equal(squares.hashes, whole.hashes)  # of the files, so a run finds its images whatever its fit


def test_arrays_are_padded(tmp_path, monkeypatch):
    monkeypatch.setenv("ONSIGHT_CACHE", str(tmp_path / "cache"))
    images = np.random.default_rng(0).integers(0, 256, (6, 12, 20, 3), np.uint8)
    names = {"classes": ("a", "b"), "labels": np.arange(6) % 2, "parts": np.full(6, ""), "provenance": "noise"}
    dataset = from_arrays("noise", images=images, **names)
    found = load_pixels(dataset, 10, fit="pad").images
    assert np.array_equal(found, [pixel_cache.decode.resize(image, 10, "pad") for image in images])


def test_heic_that_was_unreadable_is_decoded_once_pi_heif_is_installed(photos, monkeypatch):
    (photos / "cat" / "0.png").write_bytes(b"heic")
    dataset, load = load_dataset(photos), pixel_cache.decode.load_and_whole

    def without(data, *rest):
        if data == b"heic":
            raise ImageError(NO_HEIC)
        return load(data, *rest)

    header = decode.header
    monkeypatch.setattr(decode, "header", lambda data: (16, 16, 1) if data == b"heic" else header(data))

    def installed(data, *rest):
        return (np.full((16, 16, 3), 9, np.uint8), b"pixels") if data == b"heic" else load(data, *rest)

    monkeypatch.setattr(pixel_cache, "find_spec", lambda name: None)
    monkeypatch.setattr(pixel_cache.decode, "load_and_whole", without)
    assert load_pixels(dataset, 16).broken == {0: NO_HEIC}
    monkeypatch.setattr(pixel_cache.decode, "load_and_whole", installed)
    assert load_pixels(dataset, 16).broken == {0: NO_HEIC}  # from the cache, because pi-heif is still missing
    monkeypatch.setattr(pixel_cache, "find_spec", lambda name: object())
    found = load_pixels(dataset, 16)
    assert found.broken == {}
    assert (found.images[0] == 9).all()


def test_images_that_an_earlier_version_decoded_are_decoded_again(photos, tmp_path, monkeypatch):
    dataset = load_dataset(photos)
    with monkeypatch.context() as patch:
        patch.setattr(pixel_cache, "READER_VERSION", 2)  # decoded photos at a reduced size
        old = load_pixels(dataset, 16)
        (file,) = (tmp_path / "cache" / "pixels").glob("*/images.npy")
        del old
        np.save(file, np.zeros((40, 16, 16, 3), np.uint8))
    assert load_pixels(dataset, 16).images.any()


def test_an_image_is_recognised_in_any_lossless_format_and_in_an_array(photos, tmp_path):
    """What a run has seen must be found again, whatever file it is in."""
    names = ("cat/0.png", "cat/1.png", "dog/2.png", "dog/3.png")
    for number, name in enumerate(names):
        with Image.open(photos / name) as image:
            (tmp_path / "others" / name).parent.mkdir(parents=True, exist_ok=True)
            image.save(
                (tmp_path / "others" / name).with_suffix((".bmp", ".tif", ".png", ".webp")[number]), lossless=True
            )
    first, others = (load_pixels(load_dataset(data), 16) for data in (photos, tmp_path / "others"))
    pixels = np.stack([np.asarray(Image.open(photos / name)) for name in names])
    facts = {"classes": ("cat", "dog"), "labels": np.array([0, 0, 1, 1]), "parts": np.full(4, ""), "provenance": "x"}
    array = load_pixels(from_arrays("array", images=pixels, **facts), 16)
    prints = first.prints(np.arange(40))
    assert len(prints) == 80
    assert others.among(prints).all()
    assert array.among(prints).all()
    assert not array.among(first.prints(np.arange(4, 8))).any()
    assert first.among(array.prints(np.array([1, 2]))).sum() == 2


def test_a_jpeg_is_recognised_by_its_pixels_whatever_the_model_size_unless_it_is_large(photos, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for name in ("cat/new.jpg", "dog/new.jpg"):
        Image.fromarray(rng.integers(0, 256, (200, 300, 3), np.uint8)).save(photos / name)
        with Image.open(photos / name) as image:
            (tmp_path / "png" / name).parent.mkdir(parents=True)
            image.save((tmp_path / "png" / name).with_suffix(".png"))
    small, large = (load_pixels(load_dataset(photos), size) for size in (16, 128))
    assert np.array_equal(small.contents, large.contents)
    png = load_pixels(load_dataset(tmp_path / "png"), 16)
    assert png.among(small.prints(np.arange(42))).all()
    monkeypatch.setattr(pixel_cache.decode, "WHOLE", 59_999)
    monkeypatch.setenv("ONSIGHT_CACHE", str(tmp_path / "another cache"))
    again = load_pixels(load_dataset(photos), 16)
    found = png.among(again.prints(np.arange(42)))
    assert not found.any()
    assert again.among(small.prints(np.arange(42))).all()  # by the hashes of the files


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_killed_fill_goes_on_where_it_was(photos, tmp_path, monkeypatch):
    code = (
        "import time; from onsight.data import pixel_cache; from onsight.data.load import load_dataset; "
        "pixel_cache.SAVED_EVERY = 0; load = pixel_cache.decode.load_and_whole; "
        "pixel_cache.decode.load_and_whole = lambda *words: (time.sleep(0.02), load(*words))[1]; "
        "pixel_cache.each = lambda read, count, threads: (read(number) or number + 1 for number in range(count)); "
        f"pixel_cache.load_pixels(load_dataset({str(photos)!r}), 16)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    while not [*(tmp_path / "cache" / "pixels").glob("*/done.txt")] and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = int(next((tmp_path / "cache" / "pixels").glob("*/done.txt")).read_text())
    assert 0 < done < 40
    calls, load = [], pixel_cache.decode.load_and_whole
    monkeypatch.setattr(pixel_cache.decode, "load_and_whole", lambda *words: (calls.append(1), load(*words))[1])
    dataset = load_dataset(photos)
    found = load_pixels(dataset, 16)
    assert len(calls) == 40 - done
    assert all(np.array_equal(found.images[index], load(dataset.read(index), 16)[0]) for index in range(40))
    assert (found.hashes > 0).all()
    assert not [*(tmp_path / "cache" / "pixels").glob("*/done.txt")]
