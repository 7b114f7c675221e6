"""The writer of the `web` format: one HTML file that holds the page, the model and the runtime, and works offline.

The runtime is LiteRT.js (`@litertjs/core`), which is not a Python package. `make web` installs it with npm, pinned and
verified, into `litertjs/` next to this file. Wheels include it.
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
from onsight.imaging.augment import GREY

LITERT = Path(__file__).parent / "litertjs"
# The build without relaxed SIMD: every browser runs it, and it never fuses a multiplication and an addition into one
# rounding where Python rounds twice.
PARTS = ("package.json", "index.js", "litert_wasm_compat_internal.js", "litert_wasm_compat_internal.wasm")


def require_litert() -> None:
    """Raise ExportError, which describes how to get LiteRT.js, if it is missing."""
    missing = [name for name in PARTS if not (LITERT / name).is_file()]
    if missing:
        raise ExportError(
            f"web needs LiteRT.js, but {LITERT / missing[0]} is missing. Wheels include it; in a checkout, install it "
            "with npm: make web"
        )


def write_web(model_folder: Path, path: Path, precision: Precision, images: np.ndarray) -> None:
    """Write the page. It contains the model that `export litert` writes, with the batch size fixed to 1."""
    from onsight.exporting.quantize import quantized
    from onsight.exporting.write_litert import litert_content, run_name
    from onsight.models.litert_file import fix_batch
    from onsight.models.model_file import read_description

    require_litert()
    content = litert_content(model_folder)
    if precision != "float32":
        content = quantized(content, precision, images)
    description = read_description(model_folder)
    facts = {
        "name": run_name(model_folder),
        "model": description.model,
        "size": description.image_size,
        "fit": description.fit,
        "grey": GREY,
        "classes": description.classes,
        "threshold": description.threshold,
        "distance_threshold": description.distance_threshold,
        "precision": precision,
    }
    write_atomic(path, page(facts, fix_batch(content)))


def page(facts: dict[str, Any], content: bytes) -> str:
    """Return the HTML file.

    Args:
        facts: what the page's script needs to know about the model: size, classes, threshold, names to display.
        content: the .tflite file.
    """
    from markupsafe import Markup

    package = json.loads((LITERT / "package.json").read_text("utf-8"))
    loader = escaped((LITERT / "litert_wasm_compat_internal.js").read_text("utf-8"))
    own = "".join((TEMPLATES / name).read_text("utf-8") for name in ("open_image.js", "classify.js", "web.js"))
    script = escaped(as_module((LITERT / "index.js").read_text("utf-8")) + own)
    scripts = " ".join(f"'{digest(source)}'" for source in (loader, script))
    return fill(
        "web.html.j2",
        {},
        title=facts["name"],
        # In a script element, only "<" can begin a closing tag or a comment.
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
    """Return the source of the LiteRT.js module without its import and exports, so that ours can be appended.

    The module imports one function, which loads the runtime from a URL. It is not needed, because the page already
    contains the runtime (web.js).

    Raises:
        ExportError: LiteRT.js is not the version that this code was written for.
    """
    head = 'import { createWasmLib } from "@litertjs/wasm-utils";'
    start = source.rfind("\nexport {")
    if source.count(head) != 1 or start < 0 or "function setGlobalLiteRt(" not in source:
        raise ExportError(
            f"{LITERT} holds another version of LiteRT.js than this version of Onsight needs. In a checkout, run: "
            "make web"
        )
    return source[:start].replace(head, "") + "\n"


def escaped(source: str) -> str:
    """Return a script escaped so that it cannot close the script element that contains it."""
    return source.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def digest(source: str) -> str:
    """Return the hash by which a content security policy allows a script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def packed(content: bytes) -> str:
    """Return bytes as text that the page unpacks: gzip, then base64. The runtime shrinks from 9.3 to 3.8 MB."""
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()
