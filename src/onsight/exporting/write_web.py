"""The `web` format: one HTML file that holds the model, the runtime and the page, and asks the network for nothing.

The runtime is LiteRT.js (`@litertjs/core`), which is no Python package: `make web` brings it with npm, pinned and
checked, into `litertjs/` beside this file, and a wheel is built with it.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from onsight.core.errors import ExportError
from onsight.core.files import write_atomic
from onsight.display.page import TEMPLATES, fill
from onsight.exporting.judge import Precision

LITERT = Path(__file__).parent / "litertjs"
# The build without relaxed SIMD: every browser runs it, and a product is never rounded once where Python rounds twice.
PARTS = ("package.json", "index.js", "litert_wasm_compat_internal.js", "litert_wasm_compat_internal.wasm")


def require_litert() -> None:
    """Raise ExportError where LiteRT.js is not there, with how to get it."""
    missing = [name for name in PARTS if not (LITERT / name).is_file()]
    if missing:
        raise ExportError(
            f"web needs LiteRT.js, and {LITERT / missing[0]} is not there. A wheel brings it; in a checkout it comes "
            "with npm: make web"
        )


def write_web(model_folder: Path, path: Path, precision: Precision, images: np.ndarray) -> None:
    """Write the page with the .tflite file in it that `export litert` would write."""
    from onsight.exporting.write_litert import litert_content, quantized
    from onsight.inference.litert import fix_batch
    from onsight.models.model_file import read_description

    require_litert()
    content = litert_content(model_folder)
    if precision != "float32":
        content = quantized(content, precision, images)
    description = read_description(model_folder)
    facts = {
        "name": model_folder.resolve().parent.name,  # the run's
        "model": description.model,
        "size": description.image_size,
        "classes": description.classes,
        "threshold": description.threshold,
        "precision": precision,
    }
    write_atomic(path, page(facts, fix_batch(content)))


def page(facts: dict[str, Any], content: bytes) -> str:
    """Return the HTML file.

    Args:
        facts: what the page's script knows of the model: size, classes, threshold, names for people.
        content: the .tflite file.
    """
    from markupsafe import Markup

    package = json.loads((LITERT / "package.json").read_text("utf-8"))
    loader = harmless((LITERT / "litert_wasm_compat_internal.js").read_text("utf-8"))
    script = harmless(as_module((LITERT / "index.js").read_text("utf-8")) + (TEMPLATES / "web.js").read_text("utf-8"))
    scripts = " ".join(f"'{digest(source)}'" for source in (loader, script))
    return fill(
        "web.html.j2",
        {},
        title=facts["name"],
        # In a script element only "<" could end it or begin a comment.
        facts=Markup(json.dumps(facts, ensure_ascii=True).replace("<", "\\u003c")),
        model=packed(content),
        runtime=packed((LITERT / "litert_wasm_compat_internal.wasm").read_bytes()),
        loader=Markup(loader),
        script=Markup(script),
        scripts=Markup(scripts),
        style=Markup((TEMPLATES / "web.css").read_text("utf-8")),
        litert=f"{package['name']} {package['version']}, {package['license']}",
    )


def as_module(source: str) -> str:
    """Return LiteRT.js's module as the first half of ours: nothing imported, nothing exported.

    It imports one function, which loads the runtime by its address; here that is in the page already (web.js).

    Raises:
        ExportError: it is not the version that this was written for.
    """
    head = 'import { createWasmLib } from "@litertjs/wasm-utils";'
    start = source.rfind("\nexport {")
    if source.count(head) != 1 or start < 0 or "function setGlobalLiteRt(" not in source:
        raise ExportError(
            f"{LITERT} holds another version of LiteRT.js than this Onsight knows. In a checkout: make web"
        )
    return source[:start].replace(head, "") + "\n"


def harmless(source: str) -> str:
    """Return a script that cannot end the element that it stands in."""
    return source.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def digest(source: str) -> str:
    """Return what a content security policy calls a script by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def packed(content: bytes) -> str:
    """Return bytes as text that the page unpacks: gzip, then base64. The runtime's 9.3 MB become 3.8."""
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()
