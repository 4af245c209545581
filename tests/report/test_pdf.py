import pytest

from caloforge.report import pdf, write_report


def program(tmp_path, text):
    """A program in place of the browser."""
    path = tmp_path / "chromium"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("<p>text</p>")
    return path


def test_without_a_browser_one_line_says_what_to_install(monkeypatch, tmp_path, page, caloforge):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="neither: install the package chromium"):
        pdf.write_pdf(page, tmp_path / "page.pdf")
    study = tmp_path / "study"
    study.mkdir()
    (study / "trials.json").write_text("{}")
    code, _, err = caloforge("report", study, "--pdf", "--out", tmp_path / "report.html")
    assert code == 2
    assert "install the package chromium" in err


def test_the_pdf_does_not_take_the_place_of_the_page(monkeypatch, tmp_path):
    program(tmp_path, "exit 0")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(ValueError, match=r"beside it, got .*page\.pdf"):
        write_report([tmp_path], tmp_path / "page.pdf", pdf=True)


def test_a_browser_that_fails_leaves_nothing(monkeypatch, tmp_path, page):
    program(tmp_path, "echo first >&2; echo no display >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(ValueError, match=r"did not print .*page\.html: no display"):
        pdf.write_pdf(page, tmp_path / "page.pdf")
    assert not list(tmp_path.glob("*.pdf"))


def test_a_browser_that_hangs_is_stopped(monkeypatch, tmp_path, page):
    program(tmp_path, "exec sleep 60")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr(pdf, "LIMIT", 0.2)
    with pytest.raises(ValueError, match=r"within 0\.2 s"):
        pdf.write_pdf(page, tmp_path / "page.pdf")


def test_the_page_is_printed(monkeypatch, tmp_path, page):
    program(tmp_path, 'for one; do case $one in --print-to-pdf=*) echo "%PDF" > "${one#*=}";; esac; done')
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    pdf.write_pdf(page, tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_text() == "%PDF\n"
