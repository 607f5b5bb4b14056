"""The colours of light and dark, and the style sheet made of them. A test holds their contrast."""

from __future__ import annotations

from pathlib import Path
from typing import Final

# ink and muted are letters; s1 to s5 are series; track lies under a bar.
LIGHT: Final = {
    "paper": "#faf8f4", "card": "#ffffff", "ink": "#1c1f26", "muted": "#5b6170", "line": "#e4e0d8", "track": "#f1eee8",
    "s1": "#1f6f8b", "s2": "#c2571a", "s3": "#6b4fa0", "s4": "#4b7a2b", "s5": "#a83a5b",
}  # fmt: skip
DARK: Final = {
    "paper": "#131519", "card": "#1b1e24", "ink": "#ecebe7", "muted": "#a3a9b5", "line": "#2f343d", "track": "#272b33",
    "s1": "#5fb4d1", "s2": "#f0934a", "s3": "#b49ce6", "s4": "#8fc26b", "s5": "#ee88a5",
}  # fmt: skip
HERE: Final = Path(__file__).parent


def style_sheet() -> str:
    """The whole style of a page: what the system prefers, unless ``data-theme`` on the root says otherwise."""
    light, dark = _declared(LIGHT, "light"), _declared(DARK, "dark")
    themes = (
        f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
        f':root[data-theme="light"] {{ {light} }}\n:root[data-theme="dark"] {{ {dark} }}\n'
    )
    return themes + (HERE / "page.css").read_text(encoding="utf-8")


def script() -> str:
    """The script of a page: the switch of the theme, and the box that names what is pointed at."""
    return (HERE / "page.js").read_text(encoding="utf-8")


def _declared(colours: dict[str, str], scheme: str) -> str:
    return " ".join([f"color-scheme: {scheme};", *(f"--{name}: {value};" for name, value in colours.items())])
