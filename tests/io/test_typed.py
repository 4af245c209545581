"""Typed files: what they hold comes back, and a wrong one is refused by its key."""

import copy
import json

import pytest

from caloforge import samples
from caloforge.io.card import Card
from caloforge.io.scores import Scores, read_scores
from caloforge.io.study import Study
from caloforge.io.typed import read_typed, write_typed
from made_scores import entry, scores

SCORES = scores("made", {"all": {"n": 4, "particles": 2, "metrics": {"w1": entry(1.5, 0.5, 0.25)}}})
CARD = json.loads((samples.weights()["zn-vqgan"] / "card.json").read_text())
STUDY = {
    "format": 1,
    "study": "made",
    "recipe": "made",
    "detector": "zn",
    "type": "flow_matching",
    "objective": "w1",
    "space": {
        "objective": "w1",
        "pruning": {"startup_trials": 5, "warmup_epochs": 0},
        "parameters": {"model.epochs": {"type": "int", "low": 1, "high": 4, "log": False}},
    },
    "importance": {},
    "trials": [
        {
            "number": 0,
            "state": "finished",
            "value": 2.5,
            "best_epoch": 2,
            "seconds": 1.0,
            "reason": "",
            "parameters": {"model.epochs": 2},
            "validations": [[1, 3.0], [2, 2.5]],
        }
    ],
}
FILES = {Scores: {key: SCORES[key] for key in Scores.model_fields if key in SCORES}, Card: CARD, Study: STUDY}


def keys(value, at=()):
    """Returns the path of every key of a nested value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*at, key)
        yield from keys(one, (*at, key))


def with_key(content, path, value):
    """Returns the content with another value at a path."""
    changed = copy.deepcopy(content)
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return changed


@pytest.mark.parametrize("kind", FILES)
def test_what_was_written_is_read_and_written_again_to_the_byte(kind, tmp_path):
    text = json.dumps(FILES[kind], indent=1, allow_nan=False) + "\n"
    (tmp_path / "a.json").write_text(text)
    write_typed(tmp_path / "b.json", read_typed(kind, tmp_path / "a.json"))
    assert (tmp_path / "b.json").read_text() == text


@pytest.mark.parametrize("kind", FILES)
def test_a_wrong_value_or_an_unknown_key_is_named(kind, tmp_path):
    content, file = FILES[kind], tmp_path / "a.json"
    for path in keys(content):
        # what is free in form: the domain is checked by the guard, parameters by the recipe
        if path[0] in ("domain", "made_with") or "parameters" in path[1:] or path[-1] == 0:
            continue
        file.write_text(json.dumps(with_key(content, path, [[{}]])))
        with pytest.raises(ValueError, match=str(path[0])) as error:
            read_typed(kind, file)
        assert str(file) in str(error.value)
    file.write_text(json.dumps({**content, "fromat": 1}))
    with pytest.raises(ValueError, match="unknown key 'fromat', did you mean 'format'"):
        read_typed(kind, file)


@pytest.mark.parametrize("kind", FILES)
def test_a_missing_key_and_another_format_are_named(kind, tmp_path):
    content, file = FILES[kind], tmp_path / "a.json"
    for name, field in kind.model_fields.items():
        if field.is_required():
            file.write_text(json.dumps({key: value for key, value in content.items() if key != name}))
            with pytest.raises(ValueError, match=f"{name}: Field required"):
                read_typed(kind, file)
    for other in (2, None, "1", True):
        file.write_text(json.dumps({**content, "format": other}))
        with pytest.raises(ValueError, match="must have format 1, got"):
            read_typed(kind, file)
    file.write_text("[]")
    with pytest.raises(ValueError, match="must have format 1, got 'list'"):
        read_typed(kind, file)


def test_scores_cannot_be_changed(tmp_path):
    write_typed(tmp_path / "a.json", Scores.model_validate(SCORES))
    read = read_scores(tmp_path / "a.json")
    assert read.sets["made"].all.metrics["w1"].floor.mean == 0.25
    with pytest.raises(ValueError, match="frozen"):
        read.name = "other"


def test_a_study_ranks_what_has_finished():
    later = STUDY["trials"][0] | {"number": 1, "value": 2.0}
    stopped = STUDY["trials"][0] | {"number": 2, "state": "pruned", "value": None}
    running = stopped | {"number": 3, "state": "running", "validations": []}
    study = Study.model_validate(STUDY | {"trials": [*STUDY["trials"], later, stopped, running]})
    assert [trial.number for trial in study.finished] == [1, 0]
    assert [trial.number for trial in study.ended] == [0, 1, 2]
    assert [trial.reached for trial in study.trials] == [2.5, 2.0, 2.5, None]
