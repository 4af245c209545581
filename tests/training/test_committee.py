import numpy as np
import pytest
import torch

import caloforge as cf
from caloforge.detectors import ZN
from caloforge.io import create, provenance
from caloforge.io.run import Run, read_weights
from caloforge.recipe import parse
from caloforge.runtime.domain import Domain
from caloforge.training.checkpoint import load_model
from caloforge.training.run import bootstrapped
from made import made_events
from made_run import made_run

TINY = {
    "type": "channel_flow_matching",
    "width": 8,
    "blocks": 1,
    "epochs": 1,
    "batch_size": 64,
    "solver": {"steps": 2},
    "validation_events": 16,
}


def recipe(path, **data):
    return parse(
        {
            "name": "tiny",
            "detector": "zn",
            "data": {"files": [str(path)], **data},
            "model": TINY,
            "training": {"threads": 1},
        }
    )


@pytest.fixture(scope="module")
def committee(tmp_path_factory):
    folder = tmp_path_factory.mktemp("committee")
    with create(folder / "zn.h5", ZN) as writer:
        writer.append(made_events(particles=60, repeats=4))
    cf.train(recipe(folder / "zn.h5", bootstrap=True), folder / "run", members=2)
    return folder


def test_members_differ_and_the_first_is_the_run_itself(committee):
    run = Run(committee / "run")
    assert run.members == 2
    first, second = (read_weights(run.member(number).weights) for number in (1, 2))
    assert not np.array_equal(first["network.first.weight"], second["network.first.weight"])
    # others of the particles, so that the normalization differs too
    assert not np.array_equal(first["standardize.mean"], second["standardize.mean"])
    assert run.member(2).recipe().member == 2
    weights = [load_model(run.path, replica=number)[1].network.first.weight for number in (0, 1, 2)]
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[2], torch.from_numpy(second["network.first.weight"]))
    with pytest.raises(ValueError, match="committee of 2: wanted a replica from 1 to 2, got 3"):
        load_model(run.path, replica=3)


def test_a_committee_is_made_larger_and_finished_members_stay(committee):
    run = Run(committee / "run")
    before = [run.member(number).weights.stat().st_mtime_ns for number in (1, 2)]
    cf.train(recipe(committee / "zn.h5", bootstrap=True), run.path, members=3, resume=True)
    assert run.members == 3
    assert before == [run.member(number).weights.stat().st_mtime_ns for number in (1, 2)]
    with pytest.raises(ValueError, match="already holds a run"):
        cf.train(recipe(committee / "zn.h5"), run.path, members=3)


def test_bootstrapped_rows_keep_particles_together(committee):
    groups = np.repeat(np.arange(50), 3)
    rows = np.arange(150) + 1000
    assert bootstrapped(rows, groups, recipe(committee / "zn.h5")) is rows
    parsed = recipe(committee / "zn.h5", bootstrap=True)
    drawn = bootstrapped(rows, groups, parsed)
    counts = np.bincount(drawn - 1000, minlength=150).reshape(50, 3)
    assert (counts == counts[:, :1]).all()
    assert counts[:, 0].sum() == 50
    assert 20 < np.count_nonzero(counts[:, 0]) < 43
    other = bootstrapped(rows, groups, parsed.model_copy(update={"member": 2}))
    assert not np.array_equal(drawn, other)


def with_domain(path):
    run, events = Run(path), made_events(particles=60, repeats=4)
    run.write_card(run.card().model_copy(update={"domain": Domain.fit(events).to_card()}))
    return path


def test_a_replica_is_sampled_like_any_model(tmp_path):
    run = with_domain(made_run(tmp_path / "run", "channel_flow_matching", bayesian={"initial": 0.5}))
    particles = made_events(particles=6, repeats=2)
    mean, third = cf.load(run), cf.load(run).replica(3)
    drawn = third.channels(particles, seed=1, on_outside="flag")
    assert all(
        np.array_equal(
            drawn[label], cf.load(run, replica=3).channels(particles, seed=1, on_outside="flag")[label]
        )
        for label in drawn
    )
    assert any(
        (values != mean.channels(particles, seed=1, on_outside="flag")[label]).any()
        for label, values in drawn.items()
    )
    cf.write(particles, tmp_path / "particles.h5")
    third.sample_to(tmp_path / "out.h5", tmp_path / "particles.h5", readout="channels", on_outside="flag")
    assert provenance(tmp_path / "out.h5")["replica"] == 3


def test_a_plain_run_has_no_replicas(tmp_path):
    run = made_run(tmp_path / "run", "channel_flow_matching")
    with pytest.raises(ValueError, match="replica 1 was asked for, but the model has none"):
        cf.load(run, replica=1)
