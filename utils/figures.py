"""Style of all figures: Okabe-Ito colours, white background, message as title, alternative text.

Other modules create figures; `show` displays them.
"""

import base64
import io
import textwrap

from IPython.display import display
from matplotlib import pyplot
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from PIL import Image

# Okabe and Ito's palette, distinct in all common forms of colour blindness.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY = "#999999"  # for baselines

INK = "gray_r"  # a digit dark on white
# Blue is above zero and vermilion below, white is zero.
SIGNED = LinearSegmentedColormap.from_list("signed", [VERMILION, "white", BLUE])

STYLE = {  # beside matplotlib's own, which is white
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "axes.axisbelow": True,
    "axes.titlesize": 12,
    "figure.titlesize": 12,
    "figure.dpi": 80,
    "font.size": 11,
}


def show(figure: Figure) -> None:
    """Display a figure with its alternative text, then close it.

    As a PNG of 256 colours, which takes less room in a notebook and looks the same. The text is
    the plain form of the output, so that nbval compares the title and its computed figures.
    """
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", bbox_inches="tight")
    picture = Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    picture.save(small, format="png", optimize=True)
    content = {"image/png": base64.b64encode(small.getvalue()).decode(), "text/plain": figure.alt}
    display(content, raw=True, metadata={"image/png": {"alt": figure.alt}})
    pyplot.close(figure)


def panels(rows: int, columns: int, size: tuple[float, float], title: str, alt: str):
    """A figure of several panels, and their axes as an array [rows, columns]. Size in inches."""
    pyplot.style.use(["default", STYLE])  # a user's dark style would show in what is drawn later
    figure, axes = pyplot.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    filled = textwrap.fill(title, int(size[0] * 11.5), break_on_hyphens=False)
    figure.suptitle(filled, x=0.01, ha="left")
    figure.alt = f"{alt}. {title}."
    return figure, axes


def sized(width: float, height: float, title: str, alt: str):
    """A figure of one panel, and its axes. Width and height in inches."""
    figure, axes = panels(1, 1, (width, height), title, alt)
    return figure, axes[0, 0]


def grid(rows: int, columns: int, size: tuple[float, float], title: str, alt: str):
    """Like `panels`, for images: axes hidden."""
    figure, axes = panels(rows, columns, size, title, alt)
    for axis in axes.flat:
        axis.axis("off")
    return figure, axes
