"""Figures of the report: one style, written as SVG and PNG, and as SVG within a page whose theme colours them."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from recalign.comparison.aggregation import System

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, GRID, PAPER = "#1b1f24", "#636b76", "#e2e5ea", "#fefefe"
SERIES = ("#2563ab", "#bf5208", "#14785a", "#7d4cb8", "#c2304a", "#0a7189", "#a83b8a", "#776800")
"""Colours of models: each at least 4.5:1 against white."""
VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--line",
    PAPER: "--card",
    **{colour: f"--series-{place}" for place, colour in enumerate(SERIES)},
}
"""Colour as drawn -> variable of the page that takes its place there."""
MARKERS = "osD^vPX*"
WIDTH = 4.6  # inches
SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib; in the page its own takes its place
    "font.size": 9.0,
    "text.parse_math": False,  # a label is text, dollar signs too
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "axes.unicode_minus": True,
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 3.0,
    "ytick.major.size": 0.0,
    "lines.linewidth": 1.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "recalign",
    "savefig.facecolor": "white",
}
LEGEND = "legend-of-lines"
SVG = "http://www.w3.org/2000/svg"
LINK = "http://www.w3.org/1999/xlink"


@dataclass(frozen=True)
class Drawn:
    """A figure.

    Args:
        name: of its files.
        title: above it.
        text: what it shows, in words, for those who do not see it.
        svg: as drawn, on white.
        png: the same.
        notes: gid of a drawn thing -> what to say when it is pointed at.
        wide: whether it needs more than half of the page.
    """

    name: str
    title: str
    text: str
    svg: bytes
    png: bytes
    notes: Mapping[str, str] = field(default_factory=dict)
    wide: bool = False


@dataclass(frozen=True)
class Look:
    """How a system is drawn."""

    colour: str
    marker: str
    hollow: bool
    line: Any = "-"

    @property
    def fill(self) -> str:
        """Colour inside its marker."""
        return PAPER if self.hollow else self.colour


def looks(systems: Sequence[System], reference: str) -> dict[str, Look]:
    """Give each system its look: the reference in ink, other models in colours, baselines in grey, oracles hollow."""
    found: dict[str, Look] = {}
    models = baselines = 0
    for system in systems:
        if system.name == reference:
            found[system.name] = Look(INK, "o", system.oracle, "--")
        elif system.baseline:
            found[system.name] = Look(MUTED, MARKERS[baselines % len(MARKERS)], True, ":")
            baselines += 1
        else:
            found[system.name] = Look(
                SERIES[models % len(SERIES)],
                MARKERS[models % len(MARKERS)],
                system.oracle,
                ("-", "-.")[models // 8 % 2],
            )
            models += 1
    return found


def draw(
    name: str,
    title: str,
    text: str,
    paint: Callable[[Axes], Mapping[str, str] | None],
    *,
    height: float = 3.1,
    width: float = WIDTH,
) -> Drawn:
    """Draw one panel.

    Args:
        name: of its files.
        title: above it; not drawn, the page says it.
        text: what it shows.
        paint: draws on the axes; returns the notes of what it gave a gid.
        height: inches.
        width: inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with _settings():
        figure = Figure(figsize=(width, height), layout="constrained")  # no pyplot: nothing global, no display
        FigureCanvasAgg(figure)
        notes = paint(figure.subplots()) or {}
        files = []
        for form, options in (("svg", {"metadata": {"Date": None, "Creator": None}}), ("png", {"dpi": 200})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=form, **options)  # type: ignore[arg-type]
            figure.set_layout_engine("none")  # it stays as it was laid out
            files.append(buffer.getvalue())
    return Drawn(name, title, text, files[0], files[1], notes, width > WIDTH)


@contextmanager
def _settings() -> Iterator[None]:
    import matplotlib as mpl

    with mpl.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the SVG has the text itself
        yield


def plain(text: str, width: int = 30) -> str:
    """Cut a label to a width, and replace what cannot be drawn."""
    text = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    return text if len(text) <= width else text[: width - 1] + "…"


def inline(drawn: Drawn, prefix: str) -> str:
    """Return the SVG for a page: coloured by its theme, in its font, with notes, and with ids that no other one has.

    Args:
        drawn: the figure.
        prefix: of its ids.
    """
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", LINK)
    root = ElementTree.fromstring(drawn.svg)
    for part in list(root):
        if part.tag == f"{{{SVG}}}metadata":
            root.remove(part)
    for left_out in ("patch_1", LEGEND):  # the background, and what the page says once for all figures
        for node in root.findall(f".//*[@id='{left_out}']"):
            node.clear()
    for node in root.iter():
        name = node.get("id")
        if name is not None and name in drawn.notes:
            node.set("class", "note")
            node.set("data-note", drawn.notes[name])
        if name is not None:
            node.set("id", f"{prefix}-{name}")
        for key, value in node.attrib.items():
            node.set(
                key, _linked(_themed(value), prefix) if key in ("style", f"{{{LINK}}}href", "clip-path") else value
            )
    width, height = root.attrib.pop("width"), root.attrib.pop("height")
    root.set("style", f"--width: {float(width[:-2]) * 4 / 3:.0f}px; aspect-ratio: {width[:-2]} / {height[:-2]}")
    root.set("role", "img")
    root.set("aria-label", drawn.text)
    return ElementTree.tostring(root, encoding="unicode")


def _themed(style: str) -> str:
    style = re.sub(r"#[0-9a-f]{6}", lambda found: _variable(found[0]), style)
    return re.sub(r"'DejaVu Sans'[^;]*", "var(--font)", style)


def _variable(colour: str) -> str:
    return f"var({VARIABLES[colour]})" if colour in VARIABLES else colour


def _linked(value: str, prefix: str) -> str:
    value = re.sub(r"url\(#", f"url(#{prefix}-", value)
    return f"#{prefix}-{value[1:]}" if value.startswith("#") else value


def mark(axes: Any, x: float, y: float, look: Look, *, size: float = 6.0, gid: str = "") -> None:
    """Draw a system's marker; the gid is what its note goes by."""
    axes.plot(
        [x],
        [y],
        look.marker,
        color=look.colour,
        markerfacecolor=look.fill,
        markeredgewidth=1.4,
        markersize=size,
        gid=gid or None,
        zorder=3,
        clip_on=False,
    )


def arrow(better: bool | None) -> str:
    """Return the arrow to where better values are, after a blank; nothing where neither direction is."""
    return "" if better is None else " ↑" if better else " ↓"


def legend(axes: Any, shown: Mapping[str, Look], limit: int = 10) -> None:
    """Name the lines, as long as they are few; a page has one legend for all figures and leaves this one out.

    Args:
        axes: which.
        shown: name -> how it is drawn.
        limit: number of names above which there is no legend.
    """
    from matplotlib.lines import Line2D

    if 0 < len(shown) <= limit:
        handles = [
            Line2D([], [], color=look.colour, linestyle=look.line, label=plain(name, 22))
            for name, look in shown.items()
        ]
        for handle, name in zip(handles, shown, strict=True):
            handle.set_label(" " + plain(name, 22))  # a label that begins with an underscore would be left out
        axes.legend(handles=handles, frameon=False, fontsize=8, handlelength=1.6, loc="best").set_gid(LEGEND)
