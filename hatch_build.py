"""Refuses to build a wheel without LiteRT.js, with which `onsight export RUN web` would fail for everyone."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = "src/onsight/exporting/litertjs"


class LitertHook(BuildHookInterface):  # type: ignore[type-arg]
    """Runs before a wheel is built; an editable installation does not need LiteRT.js."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Stop the build of a wheel that lacks LiteRT.js."""
        if version == "standard" and not (Path(self.root) / FOLDER / "package.json").is_file():
            raise SystemExit(
                f"The wheel would lack {FOLDER}, so `onsight export RUN web` would fail. Bring it with npm: make web"
            )
