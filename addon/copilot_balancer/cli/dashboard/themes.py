"""Textual themes of the dashboard, dark and light.

Law of this file: a text of any tone can be read on any ground that it stands on, also where a terminal has 256 colours
only; where it has 16 the cursor has a colour of its own.
"""

from textual.theme import Theme

DARK = Theme(
    name="balancer-dark",
    primary="#6cb6ff",
    secondary="#3d444d",
    accent="#79c0ff",
    success="#7ee787",
    warning="#e3b341",
    error="#ff7b72",
    foreground="#d7dde4",
    background="#0f1318",
    surface="#0f1318",
    panel="#1a2028",
    dark=True,
    variables={
        "good": "#7ee787",
        "caution": "#e3b341",
        "bad": "#ff7b72",
        "faint": "#8f99a5",
        "track": "#626d7a",
        "name": "#79c0ff",
        "frame": "#39414b",
        "cursor": "#2a3038",
        "cursor-of-sixteen": "#000080",
        "quiet-cursor": "#191f27",
        "footer-key-foreground": "#79c0ff",
    },
)
LIGHT = Theme(
    name="balancer-light",
    primary="#0969da",
    secondary="#c8d1da",
    accent="#0969da",
    success="#116329",
    warning="#8a5a00",
    error="#c01c28",
    foreground="#1f2328",
    background="#fcfcfd",
    surface="#fcfcfd",
    panel="#eef1f4",
    dark=False,
    variables={
        "good": "#116329",
        "caution": "#8a5a00",
        "bad": "#c01c28",
        "faint": "#5c6570",
        "track": "#8a949e",
        "name": "#0550ae",
        "frame": "#c3ccd5",
        "cursor": "#d8e8fb",
        "cursor-of-sixteen": "#c0c0c0",
        "quiet-cursor": "#eff3f7",
        "footer-key-foreground": "#0550ae",
    },
)
