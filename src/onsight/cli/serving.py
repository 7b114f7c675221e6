"""`serve`, `label` and `studio`: the commands that run a server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from onsight.cli.app import Quiet
from onsight.cli.flags import Flag
from onsight.cli.output import hint, say
from onsight.core.errors import SpecError

Host = Annotated[str, Flag("the address to listen on; 0.0.0.0 is all of this machine")]
Port = Annotated[int | None, Flag("the port (default: 8000, or the next that is free)")]
NoToken = Annotated[bool, Flag("answer without a token; on 127.0.0.1 only")]
AllowHost = Annotated[
    list[str] | None,
    Flag("a further name of the server, as behind a proxy; can be repeated"),
]


def serve(
    *runs: str,
    host: Host = "127.0.0.1",
    port: Port = None,
    no_token: NoToken = False,
    allow_host: AllowHost = None,
    shadow: Annotated[bool, Flag("the first run answers; the others are asked too, and differences counted")] = False,
) -> None:
    """Answer over HTTP with finished runs: a page, JSON, the Open Inference Protocol, TensorFlow Serving's requests.

    Parameters
    ----------
    runs
        the folder of a run, or runs/latest; or several, each with a name: champion=runs/a challenger=runs/b
    """
    from onsight.serving.server import serve as run_server

    if not runs:
        raise SpecError("No run was given. For example: onsight serve runs/latest")
    names = allow_host or ()
    run_server(runs, host=host, port=port, token=not no_token, names=names, shadow=shadow, announce=announce)


def label(
    run: str = "latest",
    photos: Path | None = None,
    /,
    *,
    out: Path = Path("labels.csv"),
    host: Host = "127.0.0.1",
    port: Port = None,
    no_token: NoToken = False,
    allow_host: AllowHost = None,
    quiet: Quiet = False,
) -> None:
    """Ask people about images on a page, those first whose answers help most, and write labels.csv for train --labels.

    Parameters
    ----------
    run
        the folder of a run, or runs/latest
    photos
        a folder of images, with labels or without (default: the images of the run)
    out
        the CSV to write; answers that are in it stay
    """
    from onsight.display.reporters import make_reporter
    from onsight.labelling.label import label as run_page

    names = allow_host or ()
    run_page(
        run, photos, out=out, host=host, port=port, token=not no_token, names=names, announce=announce,
        reporter=make_reporter(quiet),
    )  # fmt: skip


def studio(
    folder: Path | None = None,
    /,
    *,
    host: Host = "127.0.0.1",
    port: Port = None,
    no_token: NoToken = False,
    allow_host: AllowHost = None,
) -> None:
    """Show runs on a page while they train: a table, live curves, reports and comparisons. It changes nothing.

    Parameters
    ----------
    folder
        the folder of the runs (default: runs, or ONSIGHT_RUNS)
    """
    from onsight.studio.studio import studio as run_studio

    run_studio(folder, host=host, port=port, token=not no_token, names=allow_host or (), announce=announce)


def announce(address: str, has_token: bool) -> None:
    """Print the address at once, also into a pipe, and what to know about it."""
    say(address)
    sys.stdout.flush()
    hint("Whoever has this address can use the server. Ctrl-C stops it." if has_token else "Ctrl-C stops it.")
