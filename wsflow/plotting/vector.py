"""Figures as SVG within a page: in the colours of the page, without a background, and described in words."""

from __future__ import annotations

import hashlib
import re
from html import escape
from io import StringIO
from typing import Any

OUTER = re.compile(r"^.*?<svg[^>]*?viewBox=\"([^\"]+)\"[^>]*>", re.DOTALL)
APART = re.compile(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", re.DOTALL)
NAMES = re.compile(r'(\bid="|href="#|url\(#)')
COLOURS = {"#000000": "currentColor", "#ffffff": "var(--background)"}


def inline_svg(figure: Any, alt: str) -> str:
    """Return a figure of matplotlib as an element of a page of HTML, with these words for who does not see it.

    What is black has the colour of the text around it, and what is white that of the page, ``--background``, so that
    one figure is for light and dark pages.
    """
    from matplotlib import rc_context

    stream = StringIO()
    # letters as outlines look the same everywhere; what is drawn decides all names
    with rc_context({"svg.fonttype": "path", "svg.hashsalt": "wsflow"}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    outer = OUTER.match(text)
    body = APART.sub("", text[outer.end() :] if outer else text)
    # several figures of a page must not share names
    prefix = f"f{hashlib.sha256(text.encode()).hexdigest()[:8]}-"
    body = NAMES.sub(rf"\g<1>{prefix}", body)
    for colour, of_page in COLOURS.items():
        body = body.replace(colour, of_page)
    box = outer.group(1) if outer else ""
    return (
        f'<svg role="img" aria-label="{escape(alt)}" viewBox="{box}" xmlns:xlink="http://www.w3.org/1999/xlink">{body}'
    )
