"""What the command line says of errors: one line each, and the code that tells whose they are."""

import csv

import pytest

from caloforge import cli
from caloforge._errors import EXTRAS, explained, one_line


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("no"), 2),
        (OSError("no"), 2),
        (csv.Error("no"), 2),
        (RecursionError("no"), 2),
        (OverflowError("no"), 2),
        (MemoryError(), 2),
        (ModuleNotFoundError("No module named 'x'", name="x"), 2),
        (KeyError("no"), 1),
        (TypeError("no"), 1),
        (AssertionError(), 1),
        (ZeroDivisionError("no"), 1),
    ],
)
def test_code_and_one_line(caloforge, monkeypatch, error, code):
    def broken(file):
        raise error

    monkeypatch.setattr(cli.data, "located", broken)
    got, out, err = caloforge("data", "inspect", "a.h5")
    assert (got, out, err.count("\n")) == (code, "", 1)
    assert err.startswith("error: ")
    assert ("a defect of caloforge" in err) == (code == 1)
    got, _, err = caloforge("data", "inspect", "a.h5", "--traceback")
    assert (got, "Traceback" in err, "in broken" in err) == (code, True, True)


def test_a_path_with_breaks_and_colours_is_one_line(caloforge, tmp_path):
    for name in ("a\r\nb.h5", "a\x1b[31mb.h5", "[bold]a[/bold].h5", "a\u2028b.h5"):
        code, _, err = caloforge("data", "inspect", tmp_path / name)
        assert (code, err.count("\n"), len(err.splitlines())) == (2, 1, 1)
        assert "\x1b" not in err
    assert "[bold]a[/bold].h5" in caloforge("data", "inspect", tmp_path / "[bold]a[/bold].h5")[2]
    assert one_line("a\r\nb\x1b\u2028ü") == "a\\r\\nb\\x1b\\u2028ü"


@pytest.mark.parametrize("extra", ["torch", "lightning_fabric", "onnx", "matplotlib", "uproot"])
def test_a_missing_package_is_named_with_its_extra(extra):
    error = ModuleNotFoundError(f"No module named '{extra}.parts'", name=f"{extra}.parts")
    line, code = explained(error)
    assert (code, f"pip install 'caloforge[{EXTRAS[extra]}]'" in line) == (2, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("sample",), "Missing argument"),
        (("sampel",), "No such command 'sampel'"),
        (("sample", "a", "b", "c", "--seed", "x"), "--seed"),
        (("sample", "a", "b", "c", "--seed", 2**64), "18446744073709551615"),
        (("sample", "zn-linear", "sample:zn", "x.h5", "--device", "junk"), "no device 'junk'"),
        (("sample", "zn-flow_matching", "sample:zn", "x.h5", "--device", "cuda:99"), "has no device 'cuda:99'"),
        (("sample", "zn-flow_matching", "sample:zn", "x.h5", "--first-event", 2**63 - 9), "event numbers"),
        (("evaluate", "zn-flow_matching", "--reference", "sample:zn", "--device", "cpu:junk"), "no device"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_are_one_line(caloforge, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = caloforge(*words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err or "no run folder" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("training.accelerator=abacus", "training.accelerator must be one of auto, cpu"),
        ("training.devices=100000", "training.devices must be at most the"),
        ("training.threads=100000", "training.threads"),
        ("training.threads=-1", "training.threads"),
        ("seed=-1", "seed"),
        ("seed=18446744073709551616", "seed"),
    ],
)
def test_settings_of_a_training_that_no_machine_has(caloforge, tmp_path, monkeypatch, setting, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = caloforge("train", "zn-flow_matching", "--set", setting)
    assert (code, err.count("\n"), message in err) == (2, 1, True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["[bold]a[/bold].h5", "[/a].h5", "[red]a.h5", "a\nb.h5"])
def test_paths_that_look_like_markup_or_have_breaks_are_shown_as_they_are(caloforge, tmp_path, name):
    out = tmp_path / name
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError:
        pytest.skip("the file system has no such names")
    code, text, err = caloforge("data", "convert", "sample:zn", out)
    assert (code, err, out.exists()) == (0, "", True)
    assert one_line(str(out)) in text.replace("\n", "\\n")
    code, text, err = caloforge("data", "inspect", out)
    assert (code, err) == (0, "")
