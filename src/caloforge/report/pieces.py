"""Pieces of HTML that the sections of a page are made of."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources


def data_uri(data: bytes) -> str:
    """Returns an image, SVG or PNG, as an address that holds it."""
    kind = "png" if data.startswith(b"\x89PNG") else "svg+xml"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def image(data: bytes, alt: str, wide: float = 0.0) -> str:
    """Embeds an image; a `wide` one keeps that width in rem and scrolls on a narrow screen."""
    size = f' style="min-width:{wide:g}rem;max-width:{1.7 * wide:g}rem"' if wide else ""
    embedded = f'<img src="{data_uri(data)}" alt="{escape(alt, quote=True)}"{size}>'
    return f'<div class="scroll wide">{embedded}</div>' if wide else embedded


def whole_page(title: str, body: str) -> str:
    """Puts a body into a page that loads nothing from elsewhere."""
    style = (resources.files("caloforge.report") / "page.css").read_text(encoding="utf-8")
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body>{body}</body></html>\n"
    )


def figure(images: Iterable[str], caption: str, kind: str = "") -> str:
    """Puts images side by side over a caption."""
    drawn = "".join(images)
    return (
        f'<figure class="{kind}"><div class="images">{drawn}</div><figcaption>{caption}</figcaption></figure>'
    )


def missing(text: str) -> str:
    """Says what is not there, in its place."""
    return f'<p class="missing">{escape(text)}</p>'


def joined(names: Sequence[str]) -> str:
    """Lists names as in a sentence: "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def plural(count: int, word: str) -> str:
    """Counts things: "1 row", "2 rows"."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"
