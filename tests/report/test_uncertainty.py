import json
import shutil

import numpy as np
import pytest

from caloforge.detectors import ZN
from caloforge.events import with_responses
from caloforge.io import create, open_events
from caloforge.report.histograms import Bins, per_width, with_replicas
from caloforge.report.pages.run import write_report
from caloforge.report.pages.uncertainty import relative_spread
from made import made_events


def bins(*counts):
    values = np.array(counts, float)
    return Bins(np.arange(len(counts) + 1.0) * 2, values, values)


def test_the_band_of_replicas_is_their_standard_deviation():
    model = with_replicas(bins(4, 9), [bins(3, 9), bins(5, 9), bins(7, 9)])
    np.testing.assert_allclose(model.replicas, [2, 0])
    np.testing.assert_allclose(per_width(model, 1.0).replicas, [1, 0])
    assert with_replicas(bins(4, 9), [bins(3, 9)]).replicas is None


def test_the_map_has_the_spread_of_means_by_bin():
    events = made_events(particles=30, repeats=4)
    energies, across = events.conditions[:, 0].astype(float), np.tile([0.5, 1.5], 60)
    edges, others = np.array([energies.min(), np.median(energies), energies.max()]), np.array([0.0, 1.0, 2.0])
    replicas = tuple(with_responses(events.primaries, events.responses * factor) for factor in (1, 2, 3))
    np.testing.assert_allclose(relative_spread(replicas, energies, edges, across, others), 0.5)
    few = relative_spread(replicas, energies, np.append(edges, 2 * edges[-1]), across, others)
    assert np.isnan(few[2]).all()


def with_three_replicas(run, out):
    shutil.copytree(run, out)
    events = open_events(out / "generated" / "made.h5").slices(slice(None))
    files = []
    for number in (1, 2, 3):
        files.append(f"generated/made.replica-{number}.h5")
        with create(out / files[-1], ZN) as writer:
            writer.append(with_responses(events.primaries, events.responses + (number > 2)))
    scores = json.loads((out / "scores.json").read_text())
    scores["sets"]["made"]["replicas"] = files
    (out / "scores.json").write_text(json.dumps(scores))
    return out


@pytest.mark.slow
def test_the_page_has_bands_and_a_map_where_there_are_replicas(run, tmp_path):
    write_report([run], tmp_path / "plain.html")
    assert "Hatched" not in (tmp_path / "plain.html").read_text()
    write_report([with_three_replicas(run, tmp_path / "sure")], tmp_path / "sure.html")
    page = (tmp_path / "sure.html").read_text()
    assert "Hatched: standard deviation over replicas" in page
    assert "relative uncertainty" in page
