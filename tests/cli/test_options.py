"""The options of every verb: others write them into scripts, so that one that goes or comes is seen here."""

# ruff: noqa: E501

import typer

from caloforge import cli

OPTIONS = {
    "simulate": "detector out --events --energy --particle --spectrum --theta --phi --jobs --seed --cut --physics --scoring --layers --sampling-fraction --part --fast --g4data --download --resume --keep",
    "train": "recipe --data --reference --out --set --start --members --resume --columns --tree",
    "tune": "recipe --space --trials --timeout --out --storage --study --data --set --keep",
    "sample": "run primaries out --seed --first-event --batch-size --device --set --replica --threads --runtime --exact --readout --on-outside --trust --columns --tree",
    "generate": "primaries out --bundle --seed --first-event --readout --jobs --shard --resume --part --on-outside --dask --write-submit --shards --transfer --trust",
    "export": "runs --out --target --zero --set --replica --data --threshold --trust --a-side --unknown",
    "evaluate": "target --reference --data --repeats --out --seed --batch-size --device --set --sweep --detector --classifiers --challenge --true-sums --replicas --trust",
    "weigh": "events out --reference --generated --view --classifier --folds --clip --seed --device --detector",
    "report": "runs --out --reference --pdf --trust",
    "compare": "out --plan --data --only --shipped --page",
    "demo": "--out --detector",
    "info": "",
    "detector new": "name --cells --unit --conditions --channels --title --pitch --threshold --out",
    "import calodream": "files --out --data --recipe --normalization --set",
    "data inspect": "file --detector --columns --tree --remember",
    "data convert": "source out --particles --detector --columns --tree",
    "data merge": "sources out",
}


def options(command, path=""):
    for name, inner in getattr(command, "commands", {}).items():
        yield from options(inner, f"{path} {name}".strip())
    if not hasattr(command, "commands"):
        words = (max(p.opts, key=len) if p.param_type_name == "option" else p.name for p in command.params)
        yield path, " ".join(words)


def test_verbs_have_the_options_that_scripts_know():
    assert dict(options(typer.main.get_command(cli.app))) == OPTIONS
