"""Controls that all panels share: labelled, reachable by keyboard, read when they are released."""

from __future__ import annotations

import html
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import ipywidgets as widgets

from reservelab.model.errors import BadInput

Widget = Any  # ipywidgets ships no types
_WIDE = "390px"
_STYLE = {"description_width": "130px"}
# Lab, Voila and Notebook name their colours by these variables; elsewhere the page's own are kept.
_CSS = """<style>
.rl-panel { color: var(--jp-content-font-color1, inherit); font-size: 12px; line-height: 1.35; }
.rl-panel table { border-collapse: collapse; max-width: 1150px; margin: 4px 0; }
.rl-panel th, .rl-panel td { padding: 2px 4px; text-align: right; vertical-align: top;
  font-variant-numeric: tabular-nums; background: none; white-space: nowrap; font-weight: 400;
  border-bottom: 1px solid var(--jp-border-color2, #bbb); }
.rl-panel thead th { font-weight: 600; white-space: normal; vertical-align: bottom; }
.rl-panel td.rl-text, .rl-panel th.rl-text { text-align: left; }
.rl-panel td.rl-text { white-space: normal; max-width: 175px; }
.rl-panel td.rl-off { text-align: left; white-space: normal; font-style: italic; }
.rl-panel p { margin: 2px 0; }
</style>"""


def slider(label: str, value: int, low: int, high: int, hint: str = "") -> Widget:
    """Make a slider of whole numbers.

    Parameters
    ----------
    label : str
        What it sets.
    value, low, high : int
        Where it stands and how far it goes.
    hint : str
        Shown when the pointer rests on it.

    Returns
    -------
    IntSlider
        Moved by pointer or arrow keys; its number can be typed over.
    """
    return widgets.IntSlider(
        value=value, min=low, max=high, description=label, tooltip=hint or label,
        continuous_update=False, style=_STYLE, layout=widgets.Layout(width=_WIDE),
    )  # fmt: skip


def share(label: str, value: float) -> Widget:
    """Make a slider of a share.

    Parameters
    ----------
    label : str
        Whose share it is.
    value : float
        From 0 to 1.

    Returns
    -------
    FloatSlider
        In steps of 0.01.
    """
    return widgets.FloatSlider(
        value=value, min=0.0, max=1.0, step=0.01, description=label, readout_format=".2f",
        tooltip=f"share of the threads on {label}", continuous_update=False, style=_STYLE,
        layout=widgets.Layout(width=_WIDE),
    )  # fmt: skip


def power(label: str, value: float, low: float, high: float, hint: str = "") -> Widget:
    """Make a slider of a positive number on a logarithmic scale.

    Parameters
    ----------
    label : str
        What it sets.
    value : float
        Where it stands.
    low, high : float
        Powers of ten between which it moves.
    hint : str
        Shown when the pointer rests on it.

    Returns
    -------
    FloatLogSlider
        Ten steps to a decade.
    """
    return widgets.FloatLogSlider(
        value=value, base=10, min=low, max=high, step=0.1, description=label, readout_format=".3g",
        tooltip=hint or label, continuous_update=False, style=_STYLE,
        layout=widgets.Layout(width=_WIDE),
    )  # fmt: skip


def choice(label: str, options: Sequence[Any], value: object, hint: str = "") -> Widget:
    """Make a list to choose one from.

    Parameters
    ----------
    label : str
        What it sets.
    options : sequence
        Names, or pairs of name and value.
    value : object
        The one chosen.
    hint : str
        Shown when the pointer rests on it.

    Returns
    -------
    Dropdown
        The list.
    """
    return widgets.Dropdown(
        options=options, value=value, description=label, tooltip=hint or label, style=_STYLE,
        layout=widgets.Layout(width=_WIDE),
    )  # fmt: skip


def number(label: str, value: int, low: int, high: int, hint: str = "") -> Widget:
    """Make a field for a whole number.

    Parameters
    ----------
    label : str
        What it sets.
    value, low, high : int
        What it holds and what it may hold.
    hint : str
        Shown when the pointer rests on it.

    Returns
    -------
    BoundedIntText
        Read when it is left or Enter is pressed.
    """
    return widgets.BoundedIntText(
        value=value, min=low, max=high, description=label, tooltip=hint or label,
        continuous_update=False, style=_STYLE, layout=widgets.Layout(width="250px"),
    )  # fmt: skip


def line(label: str, value: str, hint: str = "") -> Widget:
    """Make a field for a line of text.

    Parameters
    ----------
    label : str
        What it sets.
    value : str
        What it holds.
    hint : str
        Shown when the pointer rests on it, and in the empty field.

    Returns
    -------
    Text
        Read when it is left or Enter is pressed.
    """
    return widgets.Text(
        value=value, description=label, tooltip=hint or label, placeholder=hint,
        continuous_update=False, style=_STYLE, layout=widgets.Layout(width=_WIDE),
    )  # fmt: skip


def button(label: str, hint: str, pressed: Callable[[], object], **looks: object) -> Widget:
    """Make a button.

    Parameters
    ----------
    label : str
        What stands on it.
    hint : str
        Shown when the pointer rests on it.
    pressed : callable
        Called when it is pressed.
    **looks : object
        Further traits of the widget.

    Returns
    -------
    Button
        As wide as its label.
    """
    made = widgets.Button(
        description=label, tooltip=hint, layout=widgets.Layout(width="auto"), **looks
    )
    made.on_click(lambda _: pressed())
    return made


def ticks(names: Collection[str], only: Collection[str] | None) -> dict[str, Widget]:
    """Make a box to tick for each name.

    Parameters
    ----------
    names : collection of str
        What can be ticked.
    only : collection of str, optional
        What is; all unless given.

    Returns
    -------
    dict of str to Checkbox
        By name.

    Raises
    ------
    BadInput
        If what is ticked is not among the names.
    """
    chosen = names if only is None else only
    for name in chosen:
        if name not in names:
            raise BadInput("only", f"{name!r} is unknown", f"one of {list(names)}")
    return {
        name: widgets.Checkbox(
            value=name in chosen, description=name, tooltip=name, indent=False,
            layout=widgets.Layout(width="275px", height="24px", margin="0 8px 0 0"),
        )
        for name in names
    }  # fmt: skip


def drawer(
    label: str, contents: Sequence[Widget], *, is_open: bool = False
) -> tuple[Widget, Widget]:
    """Make a button that shows and hides further controls below it.

    Parameters
    ----------
    label : str
        What stands on the button.
    contents : sequence of Widget
        What it shows.
    is_open : bool
        Whether they are shown at the start.

    Returns
    -------
    ToggleButton, Box
        The button, and the contents in as many columns as fit.
    """
    toggle = widgets.ToggleButton(
        value=is_open, description=label, tooltip=f"show or hide: {label}",
        layout=widgets.Layout(width="auto"), icon="caret-down" if is_open else "caret-right",
    )  # fmt: skip
    box = row(*contents)
    box.layout.display = "" if is_open else "none"

    def show(change: Mapping[str, Any]) -> None:
        box.layout.display = "" if change["new"] else "none"
        toggle.icon = "caret-down" if change["new"] else "caret-right"

    toggle.observe(show, "value")
    return toggle, box


def row(*contents: Widget) -> Widget:
    """Put widgets beside each other, in further rows where there is no room.

    Parameters
    ----------
    *contents : Widget
        What to put there.

    Returns
    -------
    HBox
        The row.
    """
    return widgets.HBox(list(contents), layout=widgets.Layout(flex_flow="row wrap"))


def column(*contents: Widget) -> Widget:
    """Put widgets below each other.

    Parameters
    ----------
    *contents : Widget
        What to put there.

    Returns
    -------
    VBox
        The column.
    """
    return widgets.VBox(list(contents), layout=widgets.Layout(margin="0 14px 0 0"))


def words(test_id: str, body: str = "", **data: object) -> str:
    """Write what a status widget shows.

    Parameters
    ----------
    test_id : str
        Names it for whoever reads the page.
    body : str
        HTML.
    **data : object
        Further ``data-`` attributes.

    Returns
    -------
    str
        HTML.
    """
    further = "".join(f' data-{k.replace("_", "-")}="{escape(v)}"' for k, v in data.items())
    return f'{_CSS}<div class="rl-panel" data-testid="{test_id}"{further}>{body}</div>'


def escape(text: object) -> str:
    """Write text as HTML.

    Parameters
    ----------
    text : object
        What to write.

    Returns
    -------
    str
        HTML that shows it.
    """
    return html.escape(str(text), quote=True)


class Quiet:
    """Says whether controls are being set by the panel itself, which is no wish of the reader's."""

    def __init__(self) -> None:
        self._depth = 0

    def __bool__(self) -> bool:
        return self._depth > 0

    @contextmanager
    def setting(self) -> Iterator[None]:
        """Be quiet inside a `with`.

        Yields
        ------
        None
            Nothing.
        """
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
