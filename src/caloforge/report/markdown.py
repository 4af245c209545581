"""Writes a document as Markdown, with its images as files beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import assert_never

from caloforge.report import document as tree
from caloforge.report.document import Block, Cell, Document, Figure, Span, Table, Text
from caloforge.report.tables import ratio

WIDEST = 110
"""Characters of a row of a table that a page of the documentation holds; a wider one is shown in pieces."""


def write(document: Document, folder: str) -> tuple[str, dict[str, bytes]]:
    """Returns a document as Markdown and its images.

    Args:
        document: the document.
        folder: where the images will lie, relative to the page.

    Returns:
        the text, and the images by the names of their files.
    """
    images: dict[str, bytes] = {}
    lines = [f"# {_escaped(document.heading)}", *([_escaped(document.about)] if document.about else [])]
    lines += _blocks(document.blocks, 2, folder, images)
    return "\n\n".join(lines) + "\n", images


def table(table: Table) -> str:
    """Writes a table, the best in bold, the ratios to the floor in brackets."""
    header = [_escaped(words) for words in (table.head, *(column.label for column in table.columns))]
    body = [[_escaped(row.name), *map(_cell, row.cells)] for row in table.rows]
    lines = [header, ["---", *("---:" for _ in table.columns)], *body]
    safe = ([words.replace("|", "\\|") for words in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in safe) + "\n"


def _cell(cell: Cell) -> str:
    words = _escaped(cell.text)
    text = f"`{cell.text}`" if cell.code else f"**{words}**" if cell.best else words
    return f"{text} ({ratio(cell)})" if ratio(cell) else text


def _blocks(blocks: Sequence[Block], level: int, folder: str, images: dict[str, bytes]) -> Iterator[str]:
    for block in blocks:
        yield from _block(block, level, folder, images)


def _block(block: Block, level: int, folder: str, images: dict[str, bytes]) -> Iterator[str]:
    """Gives the paragraphs of a block."""
    match block:
        case tree.Paragraph():
            yield text(block.text)
        case tree.Bullets():
            yield "\n".join(f"- {text(item)}" for item in block.items)
        case tree.Facts():
            yield "\n".join(f"- {_escaped(name)}: {text(value)}" for name, value in block.pairs)
        case tree.Listing():
            fence = "`" * (1 + max([2, *(len(ticks) for ticks in re.findall("`+", block.text))]))
            yield f"{fence}\n{block.text.rstrip()}\n{fence}"
        case tree.Table():
            pieces = block.pieces(WIDEST)
            yield from (table(block.chosen(numbers)).rstrip("\n") for numbers in pieces)
            if block.notes:
                yield " ".join(map(_escaped, block.notes))
        case tree.Figure():
            yield from _figure(block, folder, images)
        case tree.Legend():
            pass  # figures that lie beside the page have legends of their own
        case tree.Grid():
            yield from _blocks(block.blocks, level, folder, images)
        case tree.Details():
            yield f"**{_escaped(block.summary)}**"
            yield from _blocks(block.blocks, level, folder, images)
        case tree.Section():
            yield f"{'#' * level} {_escaped(block.title)}"
            yield from _blocks(block.blocks, level + 1, folder, images)
        case _:
            assert_never(block)


def _figure(figure: Figure, folder: str, images: dict[str, bytes]) -> Iterator[str]:
    caption = _escaped(" ".join(filter(None, (figure.title, figure.caption))))
    stem = figure.name or f"figure-{len(images) + 1}"
    for number, image in enumerate(figure.images, 1):
        file = f"{stem if len(figure.images) == 1 else f'{stem}-{number}'}.{image.kind}"
        images[file] = image.data
        yield f"![{_escaped(image.alt)}]({folder}/{file})"
    yield caption


def text(pieces: Text) -> str:
    """Writes a text with its emphasis."""
    return "".join(_piece(piece) for piece in ((pieces,) if isinstance(pieces, str) else pieces))


def _piece(piece: str | Span) -> str:
    if isinstance(piece, str):
        return _escaped(piece)
    if piece.kind == "code":
        return f"`{piece.text}`"
    mark = "**" if piece.kind == "strong" else "*"
    return f"{mark}{_escaped(piece.text)}{mark}"


def _escaped(words: str) -> str:
    """Escapes what Markdown would take for more than words; underscores within a word it leaves alone."""
    return re.sub(r"[\\<*`]|\](?=[(\[:])|(?<!\w)_|_(?!\w)", lambda mark: f"\\{mark[0]}", words)
