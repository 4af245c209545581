"""The pages as a browser shows them: nothing wider than the window, no complaint, every picture there."""

import shutil

import pytest

from browser import Browser
from caloforge.report import pdf, write_report
from caloforge.report.pages.results import Contents, Trained, write_results
from made_study import TRIALS, write_study

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not any(map(shutil.which, pdf.BROWSERS)), reason="needs Chromium (apt-get install chromium)"
    ),
]

WIDTHS = (1400, 400)


@pytest.fixture(scope="module")
def pages(run, readout, models, tmp_path_factory):
    """A report of runs and a study, and a page of results, with all of their figures."""
    folder = tmp_path_factory.mktemp("pages")
    study = write_study(folder / "study", TRIALS)
    write_report([run, readout, study], folder / "report.html")
    trained = [Trained(path, f"caloforge train {path.name} --set model.epochs=1") for path in models]
    write_results(folder / "results.md", Contents("caloforge compare HERE", trained))
    return folder


@pytest.fixture(scope="module")
def chromium():
    with Browser() as browser:
        yield browser


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["report", "results"])
def test_a_page_fits_and_is_whole(chromium, pages, name, width, dark):
    shown = chromium.open(pages / f"{name}.html", width, dark)
    assert shown["window"] == shown["width"] == width
    assert shown["wide"] == []
    assert shown["tables"] == []
    assert shown["images"] >= 5
    assert shown["broken"] == []
    assert shown["console"] == []
    ground, ink = (int(chromium.evaluate(f"{LIGHTNESS}('{what}')")) for what in ("backgroundColor", "color"))
    assert (ground < 60 and ink > 180) if dark else (ground > 200 and ink < 80)


LIGHTNESS = (  # fmt: skip
    "(what => getComputedStyle(document.body)[what].match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0) / 3 | 0)"
)
"""The mean of red, green and blue of a colour of the page."""


def test_what_does_not_fit_or_load_is_seen(chromium, tmp_path):
    page = tmp_path / "bad.html"
    page.write_text(
        "<body><div style='width:2000px'>wide</div><img src='gone.png' alt='gone' width=9>"
        "<div class='scroll' style='overflow-x:auto'><table><tr><td style='min-width:3000px'>x</td></tr></table></div>"
        "<script>console.log('said')</script></body>"
    )
    shown = chromium.open(page, 1400)
    assert shown["width"] > 1400
    assert any(text.startswith("DIV") for text in shown["wide"])
    assert shown["tables"] == ["x"]
    assert shown["broken"] == ["gone"]
    assert len(shown["console"]) == 2  # what was said, and the picture


def test_the_report_is_printed(pages, tmp_path):
    pdf.write_pdf(pages / "report.html", tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
