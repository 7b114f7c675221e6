"""Folders of files and shards for the tests of data sources."""

import io
import tarfile


def make(root, *paths):
    """Create files that contain their own path, so that a test notices if the wrong one is read."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(str(path).encode())
    return root


def draw(channel, number=0, size=(40, 30)):
    """Return a JPEG file of noise in one colour: 0 is red, 1 is green, 2 is blue."""
    import numpy as np
    from PIL import Image

    image = np.random.default_rng(number).integers(0, 90, (size[1], size[0], 3), np.uint8)
    image[..., channel] += 150
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG")
    return file.getvalue()


def write_tar(path, members):
    """Write a tar of (name or TarInfo, content)."""
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if info.type == tarfile.REGTYPE:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def write_shards(folder, shards=3, count=20):
    """Write tars in WebDataset's format, with images of three classes in plain colours."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        members = []
        for number in range(count):
            key, label = f"{shard:02}{number:03}", ("red", "green", "blue")[number % 3]
            members += [(f"{key}.jpg", draw(number % 3, number)), (f"{key}.cls", label.encode())]
        write_tar(folder / f"photos-{shard:03}.tar", members)
    return folder
