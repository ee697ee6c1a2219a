"""matplotlib's figures as SVG inside a page, with its fonts and its colours in light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from poyo_ssl.neurons.figures import FAINT, INK, MUTED, SHADE
from poyo_ssl.predictability.figure import PREDICTABLE_COLOR, UNPREDICTABLE_COLOR

VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    FAINT: "line",
    "#333333": "ink",  # of labels
    SHADE: "shade",
    PREDICTABLE_COLOR.lower(): "predictable",
    UNPREDICTABLE_COLOR.lower(): "unpredictable",
}
"""Colour of a figure to the variable of the page that stands for it."""
_LOOK: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "poyo-ssl",  # the same figure is the same file
    "path.simplify_threshold": 0.5,
    "font.size": 9.5,
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}
_LEFT_OUT = re.compile(
    r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>| font-family: [^;\"]*;", re.DOTALL
)
_GROUP_ID = re.compile(r'<g id="[^"]*"')
_CLIPPED_DOT = re.compile(r'<g clip-path="[^"]*">\s*(<use [^>]*/>)\s*</g>')
_ALIKE = re.compile(r'<use [^>]* (style="[^"]*")/>\s*(?:<use [^>]* \1/>\s*)+')
_POSITION = re.compile(r'(?<=[ML="])( ?\d+\.\d)\d+(?: (\d+\.\d)\d+)?')
_LONG_NUMBER = re.compile(r"(\d\.\d\d)\d+")
_ELEMENT = re.compile(r"<[^>]*>")
_IMAGE = re.compile(r'(?<=base64,)[^"]*')


@contextmanager
def page_look() -> Iterator[None]:
    """Figures that are drawn and written inside look as the page does."""
    with mpl.rc_context(_LOOK):
        yield


def to_svg(figure: Figure, description: str) -> Markup:
    """A figure as an element of a page.

    Args:
        figure: Drawn in :func:`page_look`, and given here in it, too.
        description: What readers hear who do not see it.
    """
    written = io.StringIO()
    figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    text = written.getvalue()
    text = text[text.index("<svg") :]
    pieces, images = _IMAGE.split(text), _IMAGE.findall(text)
    text = _shortened(pieces[0]) + "".join(
        "".join(image.split()) + _shortened(piece)
        for image, piece in zip(images, pieces[1:], strict=True)
    )
    for color, variable in VARIABLES.items():
        text = text.replace(color, f"var(--{variable})")
    head, tail = text.split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    return Markup(f'{head} role="img" aria-label="{escape(description)}">{tail}')


def _shortened(text: str) -> str:
    """The same drawing in a third of the characters: positions to a tenth of a point."""
    text = _GROUP_ID.sub("<g", _LEFT_OUT.sub("", text)).replace("xlink:href", "href")
    text = re.sub(r"\s*\n\s*", "\n", text)
    text = _CLIPPED_DOT.sub(r"\1", text)
    text = _ALIKE.sub(
        lambda dots: f"<g {dots[1]}>" + dots[0].replace(f" {dots[1]}", "") + "</g>\n", text
    )
    text = _POSITION.sub(lambda at: f"{at[1]} {at[2]}" if at[2] else at[1], text)
    text = re.sub(r"\n(?=[LMCz])", "", text)
    # in elements alone: 0.015 beside an axis is not 0.01
    return _ELEMENT.sub(lambda element: _LONG_NUMBER.sub(r"\1", element[0]), text)
