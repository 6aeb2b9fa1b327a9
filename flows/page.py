"""Static pages: one self-contained HTML file from a template, its style, its script and its data.

Nothing is fetched from elsewhere and nothing in the data can become markup or code: text is escaped by the
template or set as text by the script, data is JSON that cannot close its element, and a content security
policy allows only the page's own style and script, by their hashes.
"""

import base64
import hashlib
import io
import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any
from urllib.parse import quote

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["data_uri", "json_for_script", "link_to", "picture_uri", "render_page"]

# Characters that could end a script element or a JavaScript line inside it.
_JSON_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def render_page(name: str, *, title: str, data: object, values: Mapping[str, Any] | None = None) -> bytes:
    """Render templates/<name>.html with base.css, <name>.css, common.js and <name>.js inside, as UTF-8.

    `data` reaches the script as JSON; `values` reach the template.
    """
    style = _text("base.css") + _text(f"{name}.css")
    script = _text("common.js") + _text(f"{name}.js")
    html = (
        _environment()
        .get_template(f"{name}.html")
        .render(
            title=title,
            style=style,
            script=script,
            policy=_policy(style, script),
            data=json_for_script(data),
            **(values or {}),
        )
    )
    return html.encode()


def json_for_script(data: object) -> str:
    """JSON that is safe inside a <script> element."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    # Lone surrogates come from file names that are no UTF-8; they must not break the page's encoding.
    return text.translate(_JSON_ESCAPES).encode("utf-8", "backslashreplace").decode()


def link_to(key: str) -> str:
    """A relative link to an object beside the page, percent-encoded: `a b#1.mp4` → `./a%20b%231.mp4`."""
    return "./" + quote(key, safe="/", errors="surrogateescape")


def picture_uri(picture: NDArray[np.uint8], *, format: str = "PNG", quality: int = 82) -> str:
    """A picture (H, W, 3 or 4) uint8 as a data: URI."""
    buffer = io.BytesIO()
    options: dict[str, Any] = {"optimize": True} if format == "PNG" else {"quality": quality}
    Image.fromarray(picture).save(buffer, format=format, **options)
    return data_uri(buffer.getvalue(), f"image/{format.lower()}")


def data_uri(content: bytes, media_type: str) -> str:
    """Bytes as a data: URI."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def _policy(style: str, script: str) -> str:
    # 'self' does not match files opened from disk, hence file: beside it.
    return "; ".join(
        [
            "default-src 'none'",
            "img-src 'self' file: data:",
            "media-src 'self' file:",
            f"style-src {_hash(style)}",
            f"script-src {_hash(script)}",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _text(name: str) -> str:
    return resources.files("flows").joinpath("templates", name).read_text(encoding="utf-8")


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("flows", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
