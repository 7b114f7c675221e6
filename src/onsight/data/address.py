"""What lies at an address, like s3://bucket/photos -> `Dataset`: a folder of images, a zip, or shards."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from onsight.core.progress import Progress
from onsight.data import remote
from onsight.data.dataset import Dataset
from onsight.data.folder import above, arrange, below, is_image, is_within_hidden
from onsight.data.folder_layout import needless_levels
from onsight.data.reading import AUTOMATIC, SHARDS, Reading, names_shards
from onsight.data.shards import find_shards, read_shards
from onsight.data.zip_file import read_zip


def read_address(
    address: str, complete: bool = True, reading: Reading = AUTOMATIC, progress: Progress | None = None
) -> Dataset:
    """List the images at `address`. A zip and shards are downloaded into the cache, images are read one by one.

    Raises:
        SpecError: the address cannot be opened, for example because a package is missing.
        DataError: there is nothing, it may not be read, or its layout is another one.
        DownloadError: the service did not answer.
    """
    if address.lower().endswith(".zip"):
        reading.check_fit(address, "a zip", layout=True)
        return read_zip(remote.fetched(address, progress)[0], complete, reading)
    if names_shards(address):
        return read_shards(address, find_shards(address), complete, reading, progress)
    address = address.rstrip("/")
    images, shards = list_address(address)
    if shards and not images:
        return read_shards(address, shards, complete, reading, progress)
    reading.check_fit(address, "a folder", layout=True)
    folders = {folder for path in images for folder in above(path)}
    prefix = needless_levels(folders, reading.layout)
    images, folders = below(prefix, images), {*below(prefix, dict.fromkeys(folders))}
    scheme, _, path = address.partition("://")
    stamps = {path: entry.stamp for path, entry in images.items()}
    read = partial(remote.read, f"{address}/{prefix}", images)
    dataset = arrange(f"{scheme} folder", path.rpartition("/")[2], stamps, folders, read, complete, reading)
    return replace(dataset, waits=True)


def list_address(address: str) -> tuple[dict[str, remote.Entry], list[str]]:
    """Return the images below an address, by their paths there, and the addresses of the shards, sorted."""
    found = {path: entry for path, entry in remote.listed(address).items() if not is_within_hidden(path)}
    images = {path: entry for path, entry in found.items() if is_image(path)}
    shards = [f"{address.rstrip('/')}/{path}" for path in sorted(found) if path.lower().endswith(SHARDS)]
    return images, shards
