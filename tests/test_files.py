"""One set of files trains, another one judges."""

import json

import numpy as np
import pytest

from caloforge import face, recipe
from caloforge.detectors import DS2
from caloforge.evaluation.scoring import evaluate_events, evaluate_run
from caloforge.events import judged, split
from caloforge.io import convert, create, open_events
from caloforge.io.content import content_hash
from caloforge.io.run import Run
from caloforge.metrics.showers import Sizes
from caloforge.report.runs import comparisons, read_runs
from caloforge.training import data
from made_showers import made_showers

QUICK = Sizes(fpd_draws=1, kpd_batches=1, prdc_rows=20, splits=2, slow_splits=1)


def written(path, rows, seed):
    with create(path, DS2) as writer:
        writer.append(made_showers(rows=rows, seed=seed))
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    rows = {"train_1": 60, "train_2": 40, "test_1": 24, "test_2": 16}
    return {name: written(folder / f"{name}.hdf5", n, k) for k, (name, n) in enumerate(rows.items())}


@pytest.fixture(scope="module")
def run(files, tmp_path_factory):
    return face.train(
        "ds2-nearest",
        tmp_path_factory.mktemp("run") / "run",
        data=[files["train_1"], files["train_2"]],
        reference=[files["test_1"], files["test_2"]],
    )


@pytest.mark.parametrize(
    ("rows", "share", "chosen"), [(100, 0.02, 2), (100, 0.0, 0), (7, 0.5, 4), (1000, 0.1, 100)]
)
def test_all_rows_train_but_for_an_even_share(rows, share, chosen):
    source = made_showers(rows=2)
    many = type("Many", (), {"primaries": source.primaries, "__len__": lambda self: rows})()
    parts = split(many, "files", validation=share)
    assert len(parts["validation"]) == chosen
    assert len(parts["test"]) == 0
    both = np.sort(np.concatenate([parts["train"], parts["validation"]]))
    np.testing.assert_array_equal(both, np.arange(rows))
    if chosen > 1:
        assert np.ptp(np.diff(parts["validation"])) <= 1
    np.testing.assert_array_equal(judged(many, "files"), np.arange(rows))


def test_the_card_says_what_trained_and_what_judges(run, files):
    card = Run(run).card()
    assert (card.split, card.validation) == ("files", 0.02)
    assert [entry.rows for entry in card.data] == [
        {"train": 59, "validation": 1, "test": 0},
        {"train": 39, "validation": 1, "test": 0},
    ]
    assert [(entry.name, entry.rows) for entry in card.reference] == [
        ("test_1.hdf5", 24),
        ("test_2.hdf5", 16),
    ]
    assert card.data[0].content


def test_several_references_make_one_set_and_all_of_its_rows_judge(run, files, tmp_path):
    scores = evaluate_run(run, [files["test_1"], files["test_2"]], repeats=1, sizes=QUICK)
    (entry,) = scores.sets.values()
    assert list(scores.sets) == ["test_1+test_2"]
    assert (scores.split, scores.part, entry.all.n) == ("files", "test", 40)
    assert entry.reference.rows == 40
    assert [one.path for one in entry.reference.further] == [str(files["test_2"].resolve())]
    (run / "scores.json").write_text(json.dumps(scores.content()))
    (comparison,) = comparisons(read_runs([run]), {})
    assert len(comparison.reference) == 40
    np.testing.assert_array_equal(
        comparison.reference.slices(slice(30, 31)).responses,
        open_events(files["test_2"]).slices(slice(6, 7)).responses,
    )


def test_a_training_file_does_not_judge_whatever_its_name_and_format(run, files, tmp_path):
    copy = tmp_path / "other_name.npz"
    convert(files["train_2"], copy)
    message = "other_name.npz has the content of the training file train_2.hdf5"
    with pytest.raises(ValueError, match=message):
        evaluate_run(run, [files["test_1"], copy], repeats=1, sizes=QUICK)
    with pytest.raises(ValueError, match=message):
        face.train("ds2-nearest", tmp_path / "run", data=[files["train_2"]], reference=[copy])
    with pytest.raises(ValueError, match=message):
        evaluate_events(files["test_1"], [copy], sizes=QUICK, training=[files["train_2"]])


def test_events_of_such_a_run_know_what_it_was_trained_on(caloforge, run, files, tmp_path):
    out = tmp_path / "showers.hdf5"
    assert caloforge("sample", run, files["train_1"], out)[0] == 0
    code, _, err = caloforge("evaluate", out, "--reference", files["train_1"])
    assert code == 2
    assert "has the content of the training file train_1.hdf5" in err


def test_content_does_not_depend_on_the_format_and_sees_one_voxel(files, tmp_path):
    source = open_events(files["test_2"])
    convert(files["test_2"], tmp_path / "copy.parquet")
    assert content_hash(source) == content_hash(open_events(tmp_path / "copy.parquet", DS2))
    events = source.slices(slice(None))
    events.responses[3, 2, 1, 0] += 1
    assert content_hash(events) != content_hash(source)


def test_files_from_anywhere_are_judged_by_several_references(files):
    scores = evaluate_events(
        files["train_1"], [files["test_1"], files["test_2"]], sizes=QUICK, training=[files["train_2"]]
    )
    assert (scores.split, scores.part) == ("files", "all")
    assert scores.sets["test_1+test_2"].all.n == 40


def test_the_plan_is_one_line_and_the_recipe_too(files):
    values = recipe.with_settings(
        {"name": "x", "detector": "ds2", "model": {"type": "nearest"}},
        [f"data.files=['{files['train_1']}']", "data.split=files", f"data.reference=['{files['test_1']}']"],
    )
    parsed = recipe.parse(values)
    assert data.planned(parsed, {"a/train_1.hdf5": open_events(files["train_1"])}) == (
        "59 rows of train_1.hdf5 train, 1 (2 %) choose the weights; every row of test_1.hdf5 judges"
    )
    assert recipe.parse(recipe.read("ds2-calodream-paper")).data.split == "files"
    with pytest.raises(ValueError, match="reference and validation go with split = 'files'"):
        recipe.parse(recipe.with_settings(values, ["data.split=ordered"]))


def test_the_command_line_says_what_trains_and_what_judges(caloforge, files, tmp_path):
    code, text, _ = caloforge(
        "train",
        "ds2-resample",
        "--data",
        files["train_1"],
        "--reference",
        files["test_1"],
        "--out",
        tmp_path / "run",
    )
    assert code == 0
    assert (
        "59 rows of train_1.hdf5 train, 1 (2 %) choose the weights; every row of test_1.hdf5 judges" in text
    )
