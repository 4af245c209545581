"""Writes a document as one page of HTML that loads nothing from elsewhere.

The templates escape every text; nothing here puts tags together.
"""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

from caloforge._lookup import require
from caloforge.report.document import LONG, Block, Document, Image, Section, Table, sections
from caloforge.report.tables import footnotes, ratio

WIDEST = 145
"""Characters of a row of a table that a page of 1,300 pixels holds."""

COLUMN = 36
"""Least width in rem of a column of figures, as page.css has it; a figure that is wider has a row of its own."""

Line = list[tuple[int, str, str]]
"""A line of the table of contents: level, anchor and name of each section."""


def write(document: Document) -> str:
    """Returns a document as a page of HTML."""
    writer = _Writer(document)
    page: str = _environment().get_template("page.html").render(document=document, writer=writer)
    return page


def table(table: Table) -> str:
    """Returns a table alone."""
    return str(_Writer(Document("", "", ())).block(table))


@functools.cache
def _environment() -> Any:
    jinja2 = require("jinja2", "report")
    loader = jinja2.PackageLoader("caloforge.report")
    return jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )


class _Writer:
    """Gives the templates what they cannot compute."""

    ratio = staticmethod(ratio)
    footnotes = staticmethod(footnotes)
    long = LONG
    column = COLUMN

    def __init__(self, document: Document) -> None:
        self.document = document
        listed = enumerate(sections(document.blocks), 1)
        self.anchors: Mapping[int, str] = {id(section): f"s{number}" for number, section in listed}

    def block(self, block: Block, level: int = 2) -> Any:
        """Writes a block by the macro that has its class's name; sections in it are of a level."""
        macros = _environment().get_template("blocks.html").module
        return getattr(macros, type(block).__name__)(block, level, self)

    def anchor(self, section: Section) -> str:
        """Returns the anchor of a section; empty where the contents do not list it."""
        return self.anchors.get(id(section), "")

    def pieces(self, table: Table) -> list[list[int]]:
        """Returns the columns of the pieces of a table, each as wide as a page can be, by their numbers."""
        return table.pieces(WIDEST)

    def breakable(self, name: str) -> list[str]:
        """Cuts a name after hyphens and underscores, where a line may end."""
        return re.findall(r"[^-_]*[-_]+|[^-_]+", name)

    def style(self) -> str:
        """Returns the style sheet."""
        return (resources.files("caloforge.report") / "templates" / "page.css").read_text(encoding="utf-8")

    def uri(self, image: Image) -> str:
        """Returns an image as an address that holds it."""
        kind = {"png": "png", "svg": "svg+xml"}[image.kind]
        return f"data:image/{kind};base64,{base64.b64encode(image.data).decode('ascii')}"

    def lines(self) -> Iterator[Line]:
        """Returns the table of contents: a line a section and those within; those without any share a line."""
        for section in _listed(self.document.blocks):
            yield [self._entry(2, section)]
            alone: Line = []
            for inner in _listed(section.blocks):
                if within := _listed(inner.blocks):
                    yield [self._entry(3, inner), *(self._entry(4, inside) for inside in within)]
                else:
                    alone.append(self._entry(3, inner))
            if alone:
                yield alone

    def _entry(self, level: int, section: Section) -> tuple[int, str, str]:
        return level, self.anchor(section), section.short or section.title


def _listed(blocks: tuple[Block, ...]) -> list[Section]:
    return [block for block in blocks if isinstance(block, Section) and block.listed]
