"""`embed` and `similar`: what features give apart from a classifier."""

from __future__ import annotations

from pathlib import Path

from onsight.cli.app import Quiet
from onsight.cli.output import say, warn
from onsight.core.errors import SpecError
from onsight.core.files import check_target, write_atomic
from onsight.core.text import columns, count, plain
from onsight.display.reporters import make_reporter
from onsight.features.published_weights import PUBLISHED
from onsight.inference import embed as embedding
from onsight.inference import similar_page
from onsight.runs.run import open_run


def embed(network: str, data: str, /, *, out: Path = Path("features.npz"), quiet: Quiet = False) -> None:
    """Write the features of images to a file: NPZ, CSV or Parquet.

    Parameters
    ----------
    network
        the folder of a run, or a network with published weights, such as efficientnet_lite0
    data
        a named data set, or a folder, zip or CSV of images
    out
        the .npz, .csv or .parquet file
    """
    found = embedding.embed(network, data, out=out, reporter=make_reporter(quiet))
    if found.skipped:
        warn(f"{count(found.skipped, 'image')} could not be read.")
    say(f"{out}: {count(len(found.names), 'image')}, {found.features.shape[1]:,} features each")


def similar(
    network: str, /, *images: str, top: int = 12, out: Path = Path("similar.html"), quiet: Quiet = False
) -> None:
    """List the images of a folder that resemble an image most, and draw them on a page.

    Parameters
    ----------
    network
        the folder of a run, or a network with published weights, such as efficientnet_lite0
    images
        one or more images, then the folder, zip or CSV to search
    top
        images to list for each
    out
        the HTML page to write
    """
    if len(images) < 2:
        raise SpecError("Give an image and the folder to search. For example: onsight similar latest cat.jpg photos/")
    check_target(out)
    *queries, data = images
    found = embedding.similar(network, queries, data, top=top, reporter=make_reporter(quiet))
    rows = [("image", "similar", "cosine")]
    rows += [(plain(each.query), plain(each.name), f"{each.similarity:.3f}") for each in found]
    for line in columns(rows):
        say(line)
    name = network if network in PUBLISHED else open_run(network).name
    write_atomic(out, similar_page.render(found, data, name))
    say(f"Page: {out}")
