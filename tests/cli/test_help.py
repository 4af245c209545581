"""What the command line says of itself: help, completion, and what is meant by a misspelt name."""

import os
import re
import shutil
import subprocess
import sys

import pytest
import typer

from caloforge import cli
from caloforge._lookup import nearest
from caloforge.cli.info import grouped


def commands(command, path=()):
    for name, inner in getattr(command, "commands", {}).items():
        yield (*path, name), inner
        yield from commands(inner, (*path, name))


COMMANDS = dict(commands(typer.main.get_command(cli.app)))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_shows_no_internals_and_whole_summaries(caloforge, path):
    code, out, _ = caloforge(*path, "--help")
    assert code == 0
    assert "range>" not in out
    _, listed, _ = caloforge(*path[:-1], "--help")
    summary = COMMANDS[path].help.partition("\n\n")[0].split()
    assert " ".join(summary) in " ".join(listed.split())


def test_info_fits_a_screen(caloforge, monkeypatch):
    monkeypatch.setattr("caloforge.cli.info.output.width", 100)
    code, out, _ = caloforge("info")
    assert code == 0
    lines = out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 100


def test_names_are_grouped_by_what_they_share():
    names = ["a-x", "a-x-paper", "b-x", "b-x-paper", "a-y", "c-z-paper"]
    assert grouped(names) == ["a-, b-: x[-paper]", "a-: y", "c-: z-paper"]


# --- completion ----------------------------------------------------------------------------------------------


def completed(**environment):
    call = "import sys; from caloforge.cli import main; sys.argv[0] = 'caloforge'; main()"
    environment = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, "-c", call], env=environment, capture_output=True, text=True
    ).stdout


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("caloforge sam", "sample"),
        ("caloforge data insp", "inspect"),
        ("caloforge sample zn-fact", "zn-factorized_flow_matching"),
        ("caloforge train crys", "crystals-flow_matching"),
        ("caloforge sample --bat", "--batch-size"),
        ("caloforge data inspect x.h5 --detector cry", "crystals"),
    ],
)
@pytest.mark.parametrize("shell", ["bash", "zsh"])
@pytest.mark.slow
def test_words_are_completed(shell, words, wanted):
    out = completed(
        _CALOFORGE_COMPLETE=f"complete_{shell}",
        _TYPER_COMPLETE_ARGS=words,
        COMP_WORDS=words,
        COMP_CWORD=str(len(words.split()) - 1),
    )
    assert wanted in out.replace('"', " ").split()


@pytest.mark.parametrize("shell", ["bash", "zsh"])
@pytest.mark.slow
def test_completion_is_installed(shell, tmp_path):
    """The file that `--install-completion` leaves completes in the shell itself."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell} here")
    (tmp_path / "caloforge").write_text(
        f"#!{sys.executable}\nimport sys\nfrom caloforge.cli import main\nsys.argv[0] = 'caloforge'\nmain()\n"
    )
    (tmp_path / "caloforge").chmod(0o755)
    environment = os.environ | {
        "HOME": str(tmp_path),
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",
    }
    subprocess.run(
        ["caloforge", "--install-completion", shell], env=environment, check=True, capture_output=True
    )
    if shell == "bash":
        script = (
            "source ~/.bash_completions/caloforge.sh; COMP_WORDS=(caloforge data insp); COMP_CWORD=2; "
            '_caloforge_completion caloforge; echo "${COMPREPLY[@]}"; complete -p caloforge'
        )
    else:
        # what the shell would show, without a terminal to show it on
        script = (
            "compdef() { :; }; _arguments() { print -- $@; }; source ~/.zfunc/_caloforge; "
            "words=(caloforge data insp); CURRENT=3; _caloforge_completion"
        )
    del environment["_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"]
    out = subprocess.run([program, "-c", script], env=environment, capture_output=True, text=True)
    assert "inspect" in out.stdout, out.stderr


# --- did you mean --------------------------------------------------------------------------------------------


def test_the_beginning_of_a_longer_name_is_known():
    known = ["zn-tree", "zn-factorized_flow_matching-paper", "zn-factorized_flow_matching"]
    assert nearest("zn-factorised", known) == ", did you mean 'zn-factorized_flow_matching'?"
    assert nearest("zn-tre", known) == ", did you mean 'zn-tree'?"
    assert nearest("qqqqq", known) == ""
    assert nearest("h5", [".h5", ".npz"]) == ", did you mean '.h5'?"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("report runs/mine-run", "no run folder runs/mine-run, .*did you mean 'runs/mine_run'"),
        ("report mine_run", "did you mean 'runs/mine_run'"),
        ("report zn-factorised", "did you mean 'zn-factorized_flow_matching'"),
        ("sample notes.txt a.csv b.h5", "notes.txt is a file, wanted a run folder"),
        ("evaluate generatd.h5 --reference sample:zn", "no file generatd.h5, did you mean 'generated.h5'"),
        ("data inspect generatd.h5", "no file generatd.h5, did you mean 'generated.h5'"),
        ("data inspect sample:zn --detector crystal", "no detector 'crystal'.*did you mean 'crystals'"),
        ("data convert sample:zn a.parquett", "no format '.parquett'.*did you mean '.parquet'"),
        ("train zn-factorised", "did you mean 'zn-factorized_flow_matching'"),
        ("data inspekt x", "Did you mean 'inspect'"),
        ("sample --sead 3", "--seed"),
    ],
)
def test_a_misspelt_name_is_understood(caloforge, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine_run").mkdir(parents=True)
    (tmp_path / "runs" / "mine_run" / "recipe.toml").touch()
    (tmp_path / "generated.h5").touch()
    (tmp_path / "notes.txt").touch()
    code, _, err = caloforge(*words.split())
    assert code == 2
    assert len(err.splitlines()) == 1
    assert re.search(message, err), err
