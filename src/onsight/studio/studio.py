"""`studio`: checks the settings, prints the address, and serves the page until a signal ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from onsight.core.errors import RunError
from onsight.runs.run import runs_folder
from onsight.serving.server import announced, bound, chosen_token, require_packages


def studio(
    folder: Path | None,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    token: bool = True,
    names: Sequence[str] = (),
    announce: Callable[[str, bool], None],
) -> None:
    """Show the runs of a folder on a page, while they train, until a signal ends it.

    Args:
        folder: the folder of the runs; None: `runs_folder`, which need not exist yet. Nothing in it is changed.
        host: the address to listen on; `port`, `token`, `names` and `announce` are those of `serving.server.serve`.
        port: the port.
        token: whether requests must carry a token.
        names: further names of the server.
        announce: receives the address, and whether it holds the token.

    Raises:
        SpecError: a setting cannot work.
        RunError: there is no such folder, or it is a run itself.
    """
    require_packages("studio")
    chosen = chosen_token(token, host)
    if folder is not None and (folder / "spec.json").is_file():
        raise RunError(f"{folder} is one run; expected the folder of your runs: {folder.resolve().parent}")
    if folder is not None and not folder.is_dir():
        raise RunError(f"There is no folder {folder}. Name the folder of your runs, or none for {runs_folder()}.")
    from onsight.serving.service import Server
    from onsight.studio.app import Studio

    shown = Studio(folder or runs_folder())
    with bound(host, port) as listening:
        server = Server(shown.app(announced(listening, host, names, chosen, announce)))
        shown.stopping = lambda: server.should_exit
        asyncio.run(server.serve(sockets=[listening]))
