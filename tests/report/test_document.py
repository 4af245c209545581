"""Both writers, over every kind of block."""

import typing
from html.parser import HTMLParser

import pytest

from caloforge.report import document, html, markdown
from caloforge.report.document import (
    Bullets,
    Cell,
    Column,
    Details,
    Document,
    Facts,
    Figure,
    Grid,
    Image,
    Key,
    Legend,
    Listing,
    Paragraph,
    Row,
    Section,
    Span,
    Table,
    missing,
    note,
)

EVIL = '<script a="b">&*_|`x`'
"""A text that would do harm if it were not escaped."""

TABLE = Table(
    EVIL,
    (Column(EVIL, EVIL), Column("command")),
    (
        Row(EVIL, "generator", (Cell(EVIL, reason=EVIL, best=True), Cell("train x", code=True))),
        Row("m", "readout", (Cell("1", 2.0, 3.0), Cell(""))),
    ),
    (EVIL,),
)
SVG, PNG = Image(b"<svg/>", EVIL), Image(b"\x89PNG", EVIL, width=3.5)
BLOCKS = {
    "Paragraph": Paragraph(("see ", Span(EVIL, "strong"), Span(EVIL, "emphasis"), Span("code", "code")), "lead"),
    "Bullets": Bullets((EVIL, (Span(EVIL, "strong"),))),
    "Facts": Facts(((EVIL, EVIL),)),
    "Listing": Listing("a = 1\n```\nb = 2"),
    "Table": TABLE,
    "Figure": Figure((SVG, PNG), EVIL, EVIL, half=True),
    "Legend": Legend((Key("GEANT"), Key(EVIL, "#0072B2", (5, 1.6)))),
    "Grid": Grid((missing(EVIL), note(EVIL))),
    "Details": Details(EVIL, (Paragraph("inside"),), shown=True),
    "Section": Section(EVIL, (Section("inner", (Paragraph("inside"),)),)),
}  # fmt: skip


class Parsed(HTMLParser):
    VOID = frozenset({"meta", "img", "br", "wbr"})

    def __init__(self, page):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def page_of(*blocks, contents=True):
    return Document(EVIL, EVIL, blocks, about=EVIL, contents=contents)


def test_every_kind_of_block_is_tested():
    assert set(BLOCKS) == {kind.__name__ for kind in typing.get_args(document.Block)}


@pytest.mark.parametrize("name", BLOCKS)
def test_html_is_whole_and_escapes_every_text(name):
    bare = Parsed(html.write(page_of()))
    parsed = Parsed(html.write(page_of(BLOCKS[name])))
    assert parsed.open == []
    assert "script" not in parsed.tags
    assert len(parsed.tags) > len(bare.tags)
    if name != "Listing":
        assert parsed.text.count(EVIL) > bare.text.count(EVIL)


@pytest.mark.parametrize("name", BLOCKS)
def test_markdown_escapes_every_text(name):
    text, images = markdown.write(page_of(BLOCKS[name]), "images")
    assert "<script" not in text.replace("\\<script", "")
    assert list(images) == (["figure-1-1.svg", "figure-1-2.png"] if name == "Figure" else [])


def test_the_reasons_of_a_table_are_letters_below_it():
    page = html.write(page_of(TABLE))
    assert page.count("<sup>a</sup>") == 2
    assert "<small>3.00 ×</small>" in page
    assert "<code>train x</code>" in page


def test_the_contents_list_sections_and_those_within():
    inner = Section("made: events", (), "events")
    blocks = (
        Section("ZN", (Section("made", (inner, Section("aside", (), listed=False))), Section("data", ()))),
        Section("end", ()),
    )
    page = html.write(page_of(*blocks))
    lines = page.partition("<nav>")[2].partition("</nav>")[0].split("<div>")[1:]
    names = [[part.partition("<")[0] for part in line.split('">')[1:]] for line in lines]
    assert names == [["ZN"], ["made", "events"], ["data"], ["end"]]
    assert '<h4 id="s3">made: events</h4>' in page
    assert "<h4>aside</h4>" in page


def test_a_page_as_markdown():
    blocks = (
        Section("ZN", (Section("set", (Table("a", (Column("b", "cm"),), (Row("x|y", "all", (Cell("1"),)),)),)),)),
        Figure((Image(b"<svg/>", "a curve"),), "Title", "and more", name="curve"),
        Bullets((("see ", Span("this", "emphasis")), "b")),
        Details("more", (Listing("x = 1\n"),)),
    )  # fmt: skip
    text, images = markdown.write(Document("t", "Results", blocks), "images/results")
    assert images == {"curve.svg": b"<svg/>"}
    assert text == (
        "# Results\n\n## ZN\n\n### set\n\n| a | b [cm] |\n| --- | ---: |\n| x\\|y | 1 |\n\n"
        "![a curve](images/results/curve.svg)\n\nTitle and more\n\n- see *this*\n- b\n\n"
        "**more**\n\n```\nx = 1\n```\n"
    )


def test_a_listing_with_fences_keeps_them():
    text, _ = markdown.write(page_of(BLOCKS["Listing"]), "images")
    assert text.endswith("````\na = 1\n```\nb = 2\n````\n")


def test_without_jinja2_one_line_says_what_to_install(monkeypatch):
    html._environment.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    with pytest.raises(ImportError, match=r"needs the package jinja2: pip install 'caloforge\[report\]'"):
        html.write(page_of())


def test_a_table_wider_than_the_page_is_shown_in_pieces_and_no_name_is_cut():
    names = [f"zn-factorized_latent_flow_matching_{number}" for number in range(20)]
    rows = tuple(
        Row(f"row {k}", "all", tuple(Cell(f"{k} ± {number}") for number in range(21))) for k in range(2)
    )
    wide = Table("metric", (Column("floor"), *map(Column, names)), rows, fixed=1)
    page = html.write(page_of(wide))
    assert page.count("<table>") > 1
    assert page.count('data-label="floor"') == page.count("<table>") * 2
    plain = page.replace("<wbr>", "")
    assert all(plain.count(f'<th scope="col">{name}</th>') == 1 for name in names)
    assert html.write(page_of(TABLE)).count("<table>") == 1


def test_pieces_of_a_table_are_few_and_of_about_the_same_width():
    rows = (Row("row", "all", (Cell("x" * 12),) * 9),)
    table = Table("name", (Column("head"),) * 9, rows, fixed=1)
    assert table.pieces(200) == [list(range(9))]
    assert table.pieces(110) == [[0, 1, 2, 3, 4], [0, 5, 6, 7, 8]]
    assert table.pieces(1) == [[0, k] for k in range(1, 9)]
    page, _ = markdown.write(page_of(table), "images")
    assert page.count("| name | head |") == 2


@pytest.mark.parametrize(("width", "whole"), [(0, False), (html.COLUMN, False), (html.COLUMN + 1, True)])
def test_a_figure_wider_than_a_column_has_a_row_of_its_own(width, whole):
    figure = Figure((Image(b"\x89PNG", "a gallery", width), Image(b"\x89PNG", "another")))
    page = html.write(Document("Title", "", (Grid((figure,)),)))
    assert ('<figure class="row">' in page) == whole
    assert f"minmax(min(100%, {html.COLUMN}rem)" in page
