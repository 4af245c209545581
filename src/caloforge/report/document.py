"""The tree of a page: what is said and shown, without how it is written.

A page builds a `Document` once; `html` writes it as one file, `markdown` as text with images beside it. A new kind of
block needs a dataclass here, its place in `Block`, a macro in `templates/blocks.html` and a case in `markdown`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias


@dataclass(frozen=True)
class Span:
    """Holds words that are written in another way than those around them."""

    text: str
    kind: Literal["strong", "emphasis", "code"]


GAP = 3
"""Characters between two columns of a table."""

LONG = 26
"""Characters from which a text in a table may be wrapped."""

Text: TypeAlias = str | tuple[str | Span, ...]
"""A text, or its pieces where some are emphasised."""


@dataclass(frozen=True)
class Paragraph:
    """Holds a paragraph; its role says what it is for."""

    text: Text
    role: Literal["", "lead", "note", "missing", "warning"] = ""


@dataclass(frozen=True)
class Bullets:
    """Holds a list of texts."""

    items: tuple[Text, ...]


@dataclass(frozen=True)
class Facts:
    """Holds names and what is said of them."""

    pairs: tuple[tuple[str, Text], ...]


@dataclass(frozen=True)
class Listing:
    """Holds text whose line breaks count, such as a recipe."""

    text: str


@dataclass(frozen=True)
class Cell:
    """Holds one entry of a table.

    Attributes:
        text: the number as text.
        ratio: score over floor; None where there is no floor.
        matched: matched floor over floor; None where there is none.
        reason: why there is no number; empty for a number.
        best: whether it is the best of its column.
        code: whether the text is something to type.
    """

    text: str
    ratio: float | None = None
    matched: float | None = None
    reason: str = ""
    best: bool = False
    code: bool = False


@dataclass(frozen=True)
class Column:
    """Heads one column."""

    title: str
    unit: str = ""

    @property
    def label(self) -> str:
        """The title with its unit."""
        return f"{self.title} [{self.unit}]" if self.unit else self.title


@dataclass(frozen=True)
class Row:
    """Holds one row: a name, its kind (such as "generator", "floor", "all") and one cell a column."""

    name: str
    kind: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """Holds a table as plain data.

    Attributes:
        head: title of the first column, the names.
        columns: heads of the others.
        rows: its rows, each with as many cells as there are columns.
        notes: sentences to print below it.
        fixed: first columns that are repeated where the table is too wide and is shown in pieces.
    """

    head: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    fixed: int = 0

    @property
    def has_best(self) -> bool:
        """Whether a cell is marked as the best of its column."""
        return any(cell.best for row in self.rows for cell in row.cells)

    def chosen(self, numbers: Sequence[int]) -> Table:
        """Returns the table with some of its columns."""
        rows = (replace(row, cells=tuple(row.cells[number] for number in numbers)) for row in self.rows)
        return replace(self, columns=tuple(self.columns[number] for number in numbers), rows=tuple(rows))

    def pieces(self, widest: int) -> list[list[int]]:
        """Returns the columns of as few pieces as a page needs, none wider than it, by their numbers.

        Args:
            widest: characters of a row that the page holds.
        """
        pieces = self._pieces(widest)
        # as many pieces of about the same width, so that no column stands alone
        while widest > 1 and len(narrower := self._pieces(widest - 1)) == len(pieces) > 1:
            pieces, widest = narrower, widest - 1
        return pieces

    def _pieces(self, widest: int) -> list[list[int]]:
        """Fills one piece after the other."""
        first = max([len(self.head), *(len(row.name) for row in self.rows)]) + GAP
        widths = [self._width(number) for number in range(len(self.columns))]
        fixed = list(range(self.fixed))
        pieces: list[list[int]] = [[*fixed]]
        for number in range(self.fixed, len(widths)):
            taken = first + sum(widths[other] for other in pieces[-1])
            if taken + widths[number] > widest and len(pieces[-1]) > self.fixed:
                pieces.append([*fixed])
            pieces[-1].append(number)
        return pieces

    def _width(self, number: int) -> int:
        """Estimates the width of a column in characters; long texts are wrapped."""
        column = self.columns[number]
        head = max((len(word) for word in re.split(r"(?<=[-_ ])", column.title)), default=0)
        texts = (min(len(row.cells[number].text), LONG) for row in self.rows)
        return max([head, len(column.unit), *texts]) + GAP


@dataclass(frozen=True, eq=False)
class Image:
    """Holds an image.

    Attributes:
        data: bytes of SVG or PNG.
        alt: what it shows, for those who do not see it.
        width: width in rem that it keeps on a narrow screen, where it scrolls; 0 for one that shrinks.
    """

    data: bytes
    alt: str
    width: float = 0.0

    @property
    def kind(self) -> Literal["png", "svg"]:
        """The format."""
        return "png" if self.data.startswith(b"\x89PNG") else "svg"


@dataclass(frozen=True, eq=False)
class Figure:
    """Holds images side by side over a caption.

    Attributes:
        images: the images.
        title: first words of the caption.
        caption: the rest of it.
        name: name of the files of its images, where they are written as such.
        half: whether its only image is as small as one of two.
    """

    images: tuple[Image, ...]
    title: str = ""
    caption: str = ""
    name: str = ""
    half: bool = False


@dataclass(frozen=True)
class Key:
    """Says how something is drawn; without a colour it is the reference, which is black and grey everywhere."""

    label: str
    colour: str = ""
    dashes: tuple[float, ...] = ()


@dataclass(frozen=True)
class Legend:
    """Says how the models are drawn in the figures that follow."""

    keys: tuple[Key, ...]


@dataclass(frozen=True, eq=False)
class Grid:
    """Holds blocks side by side where there is room."""

    blocks: tuple[Block, ...]


@dataclass(frozen=True, eq=False)
class Details:
    """Holds blocks that are shown on demand."""

    summary: str
    blocks: tuple[Block, ...]
    shown: bool = False


@dataclass(frozen=True, eq=False)
class Section:
    """Holds blocks, and sections within, under a title.

    Attributes:
        title: its title.
        blocks: what it holds, in order.
        short: its name in the table of contents, where that is another.
        listed: whether the table of contents has it.
    """

    title: str
    blocks: tuple[Block, ...]
    short: str = ""
    listed: bool = True


Block: TypeAlias = (
    Paragraph | Bullets | Facts | Listing | Table | Figure | Legend | Grid | Details | Section
)  # fmt: skip
"""What a page is made of."""


@dataclass(frozen=True, eq=False)
class Document:
    """Holds a page.

    Attributes:
        title: of the window.
        heading: of the page.
        blocks: what it holds, in order.
        about: a line below the heading.
        contents: whether it begins with a table of contents.
    """

    title: str
    heading: str
    blocks: tuple[Block, ...]
    about: str = ""
    contents: bool = False


def walk(blocks: Sequence[Block]) -> Iterator[Block]:
    """Walks through all blocks, outer ones before those within."""
    for block in blocks:
        yield block
        if isinstance(block, Section | Details | Grid):
            yield from walk(block.blocks)


def sections(blocks: Sequence[Block]) -> Iterator[Section]:
    """Walks through all sections that the contents list, outer ones before those within."""
    return (block for block in walk(blocks) if isinstance(block, Section) and block.listed)


def missing(text: str) -> Paragraph:
    """Says what is not there, in its place."""
    return Paragraph(text, "missing")


def note(*pieces: str | Span) -> Paragraph:
    """Says what one should know of what stands nearby."""
    return Paragraph(pieces, "note")
