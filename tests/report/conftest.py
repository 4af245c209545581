"""Two tiny runs of one detector: a generator with events, and a readout without."""

import json

import numpy as np
import pytest

from caloforge.detectors import ZN
from caloforge.events import Selected, load, split, with_responses
from caloforge.io import create, open_events, sha256
from caloforge.metrics import observe, score
from made import made_events
from made_scores import scores

RECIPE = 'name = "made <b>&"\ndetector = "zn"\nseed = 0\n\n[model]\ntype = "flow_matching"\n'


def write_run(folder, reference, name="made <b>&", kind="generator", sweep=True):
    """Writes a run folder whose events are the reference's with Poisson noise."""
    source = open_events(reference)
    test = load(Selected(source, split(source, "canonical")["test"]))
    rng = np.random.default_rng(1)
    made = with_responses(test.primaries, rng.poisson(test.responses).astype(np.uint16))
    groups = score(observe(test), [observe(made)] * 2)
    (folder / "generated").mkdir(parents=True)
    with create(folder / "generated" / "made.h5", test.detector) as writer:
        writer.append(made)
    one = scores(name, groups, kind=kind)
    place = {"path": str(reference), "sha256": sha256(reference), "rows": len(test)}
    one["sets"] = {
        "made": {
            "reference": place,
            "groups": groups,
            "generated": "generated/made.h5" if kind == "generator" else None,
        }
    }
    times = {"min": 1.0, "median": 2.0, "max": 3.0}
    if sweep:
        one["timing"] = {
            "ms_per_event": times,
            "batch_size": 8,
            "threads": 1,
            "device": "cpu",
            "machine": "here",
        }
        one["sweep"] = [
            {
                "path": "solver.steps",
                "value": value,
                "ms_per_event": times,
                "sets": one["sets"],
            }
            for value in (1, 2, 4)
        ]
        card = {
            "format": 1,
            "name": name,
            "type": "flow_matching",
            "kind": kind,
            "detector": "zn",
            "features": list(ZN.features),
            "channels": "paper",
            "split": "canonical",
            "particles": [],
            "parameters": 100,
            "seed": 0,
            "version": "0.0",
            "git_revision": "abc",
            "created": "today",
            "rounding": "none",
            "data": [
                {"name": "<i>.h5", "sha256": "f" * 64, "rows": {"train": 7, "validation": 2, "test": 1}}
            ],
            "training": {"seconds": 60.0, "machine": "here", "epochs": 2, "best_epoch": 2},
        }
        (folder / "card.json").write_text(json.dumps(card))
        (folder / "recipe.toml").write_text(RECIPE)
        (folder / "log.csv").write_text(
            "stage,epoch,step,loss,validation_w1\nflow,1,5,2.0,\nflow,2,10,1.0,3.5\n"
        )
    (folder / "scores.json").write_text(json.dumps(one))
    return folder


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    path = tmp_path_factory.mktemp("reference") / "made.h5"
    events = made_events(particles=20, repeats=4)
    with create(path, events.detector) as writer:
        writer.append(events)
    return path


@pytest.fixture(scope="session")
def run(tmp_path_factory, reference):
    return write_run(tmp_path_factory.mktemp("runs") / "one", reference)


@pytest.fixture(scope="session")
def readout(tmp_path_factory, reference):
    return write_run(tmp_path_factory.mktemp("runs") / "two", reference, "sums", "readout", sweep=False)


@pytest.fixture(scope="session")
def models(tmp_path_factory, reference):
    """Runs of models that were published: two generators, of which one was swept, and a readout."""
    out = tmp_path_factory.mktemp("models")
    return [
        write_run(out / "flow", reference, "zn-flow_matching"),
        write_run(out / "maf", reference, "zn-maf", sweep=False),
        write_run(out / "sums", reference, "zn-knn", "readout", sweep=False),
    ]
