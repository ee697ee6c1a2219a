"""One look for all figures: an arm keeps its colour and symbol from figure to figure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

import plotly.graph_objects as go

from poyo_ssl.neurons.figures import FAINT as FAINT
from poyo_ssl.neurons.figures import INK as INK
from poyo_ssl.neurons.figures import MUTED as MUTED

# Okabe & Ito's palette, which readers with colour-blindness can tell apart, then Paul Tol's
_NETWORK_COLORS = {
    "scratch": "#0072B2",
    "pretrained": "#D55E00",
    "scratch + teacher": "#56B4E9",
    "pretrained + teacher": "#E69F00",
}
_MORE_NETWORK_COLORS = (
    "#009E73", "#882255", "#332288", "#999933", "#44AA99", "#CC6677",
    "#661100", "#6699CC", "#117733", "#AA4499", "#DDAA33",
)  # fmt: skip
_REFERENCE_COLORS = ("#333333", "#777777", "#555555", "#999999", "#444444", "#888888")
_REFERENCE_SYMBOLS = ("square", "diamond", "triangle-up", "cross", "star", "x")
_NETWORK_SYMBOLS = ("circle", "diamond", "triangle-up", "square", "star")
"""As many as have no divisor in common with the colours: 55 pairs before one comes again."""

PART_COLORS = {
    "recorded": "#E3E6EA",
    "train": "#88B4D8",
    "valid": "#DDAA33",
    "test": "#BB5566",
    "guard": "#8A8F98",
}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

_AXIS = {
    "gridcolor": FAINT,
    "linecolor": "#9aa3ad",
    "showline": True,
    "ticks": "outside",
    "ticklen": 4,
    "tickcolor": "#9aa3ad",
    "zeroline": False,
    "title": {"standoff": 8, "font": {"size": 13}},
    "automargin": True,
}
TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",  # the page is light or dark
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 10, "r": 10, "t": 60, "b": 40},
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "hoverlabel": {"font": {"family": FONT, "size": 12}},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": MUTED, "activecolor": INK},
        "legend": {"orientation": "h", "x": 0, "xanchor": "left"},
    }
)


@dataclass(frozen=True, kw_only=True)
class ArmStyle:
    """How one arm is drawn."""

    color: str
    symbol: str
    dash: str


def style_arms(arms: Iterable[tuple[str, str]]) -> dict[str, ArmStyle]:
    """A colour and symbol for every arm: greys for reference decoders, colours for networks.

    Args:
        arms: Pairs of arm and kind (``reference`` or ``network``); repeats are allowed.
    """
    styles: dict[str, ArmStyle] = {}
    num_others = num_references = 0
    for arm, kind in arms:
        if arm in styles:
            continue
        if kind == "reference":
            row, at = divmod(num_references, len(_REFERENCE_COLORS))
            num_references += 1
            symbol = _REFERENCE_SYMBOLS[(row + at) % len(_REFERENCE_SYMBOLS)]
            styles[arm] = ArmStyle(color=_REFERENCE_COLORS[at], symbol=symbol, dash="dot")
        elif arm in _NETWORK_COLORS:
            styles[arm] = ArmStyle(color=_NETWORK_COLORS[arm], symbol="circle", dash="solid")
        else:
            styles[arm] = ArmStyle(
                color=_MORE_NETWORK_COLORS[num_others % len(_MORE_NETWORK_COLORS)],
                symbol=_NETWORK_SYMBOLS[num_others % len(_NETWORK_SYMBOLS)],
                dash="solid",
            )
            num_others += 1
    return styles


def plain(text: object) -> str:
    """Text from a file as plotly shows it literally: plotly reads a subset of HTML."""
    return escape(str(text), quote=False)


def transparent(color: str, opacity: float) -> str:
    """A ``#rrggbb`` colour that lets others shine through."""
    red, green, blue = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def finish(figure: go.Figure, height: int, **layout: object) -> go.Figure:
    """Applies the common look; ``height`` in pixels, the width is that of the page."""
    figure.update_layout(template=TEMPLATE, height=height, **layout)
    # titles of panels: left-aligned text in the size of the page's text
    figure.for_each_annotation(lambda note: note.update(font={"size": 13, "color": INK}))
    return figure
