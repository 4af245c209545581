"""The table of the Fast Calorimeter Simulation Challenge: its numbers under its names, beside published rows.

The numbers come from scores, which `caloforge.metrics.showers.challenge` and the classifiers wrote; none is computed
here but means over layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from caloforge.io.scores import ALL, Group, Score, Scores
from caloforge.report.document import Cell, Column, Row, Table
from caloforge.report.published import PUBLISHED_SHOWERS, SEPARATIONS, SOURCE_SHOWERS
from caloforge.report.tables import MISSING, number

TITLES = {
    "ds1-photons": "data set 1, photons",
    "ds1-pions": "data set 1, pions",
    "ds2": "data set 2",
    "ds3": "data set 3",
}

CLASSIFIERS = ("low", "high", "low-normed", "resnet")
"""Views in the order of the columns; publications have the first two."""

SHARES = ("precision", "recall", "density", "coverage")

GROUPS = {
    "E_layer": "sep_layers",
    "E_tot/E_inc": "sep_total",
    "voxels": "sep_voxels",
    "EC_eta": "sep_centre_eta",
    "EC_phi": "sep_centre_phi",
    "EC_r": "sep_centre_r",
    "width_eta": "sep_width_eta",
    "width_phi": "sep_width_phi",
    "width_r": "sep_width_r",
    "sparsity": "sep_sparsity",
}
"""Kinds of histograms, and the metric that is their mean."""


def group_of(scores: Scores, stem: str) -> Group | None:
    """Returns the scores of all rows of a set, or None where they have no numbers of the challenge."""
    group = scores.sets[stem].groups.get(ALL) if stem in scores.sets else None
    return group if group is not None and group.challenge else None


def _judged(scores: Sequence[Scores], stem: str) -> list[tuple[str, Group]]:
    return [(model.name, group) for model in scores if (group := group_of(model, stem))]


def data_set_title(scores: Sequence[Scores], stem: str) -> str:
    """Names the data set of scores as the challenge does; or says that there is none."""
    names = {group.challenge["data_set"] for _, group in _judged(scores, stem)}
    return TITLES.get(str(next(iter(names), "")), "a data set of one's own")


def numbers_table(scores: Sequence[Scores], stem: str) -> Table:
    """Compares classifiers, FPD, KPD and PRDC with the published submissions: one row a model, the floor first."""
    judged = _judged(scores, stem)
    seen = {name for _, group in judged for name in group.metrics}
    views = [view for view in CLASSIFIERS if view in ("low", "high") or f"auc_{view}" in seen]
    columns = [Column(f"{name} {view}") for name in ("AUC", "JSD") for view in views]
    columns += [Column("FPD", "10⁻³"), Column("KPD", "10⁻³"), *(Column(name) for name in SHARES)]
    rows = []
    for kind, name, group in [("floor", "floor", judged[0][1])] * bool(judged) + [
        ("generator", name, group) for name, group in judged
    ]:
        cells = [
            Cell(_classified(group.metrics, f"{what}_{{}}{view}", kind == "floor"))
            for what in ("auc", "jsd")
            for view in views
        ]
        cells += [Cell(_estimate(group, key, kind == "floor")) for key in ("fpd", "kpd", *SHARES)]
        rows.append(Row(name, kind, tuple(cells)))
    published = {str(group.challenge["data_set"]) for _, group in judged}
    for row in PUBLISHED_SHOWERS.get(next(iter(published), ""), ()):
        known = {"auc low": row.auc_low, "auc high": row.auc_high}
        texts = [known.get(f"{what} {view}") for what in ("auc", "jsd") for view in views]
        values = [*texts, row.fpd, row.kpd, *(None for _ in SHARES)]
        cells = [Cell(MISSING if value is None else f"{value:,g}") for value in values]
        rows.append(Row(f"{row.model}, published", row.kind, tuple(cells)))
    return Table("model", tuple(columns), tuple(rows), tuple(_notes(judged, published)))


def _classified(metrics: Mapping[str, Score], name: str, floor: bool) -> str:
    """Writes a calibrated result, with the raw one in brackets."""
    texts = []
    for kind in ("", "raw_"):
        entry = metrics.get(name.format(kind))
        level = entry.floor if entry and floor else entry
        value = level.mean if level else None
        texts.append("" if value is None else f"{value:.4f}")
    if not texts[0]:
        return MISSING
    return f"{texts[0]} (raw {texts[1]})" if texts[1] else texts[0]


def _estimate(group: Group, name: str, floor: bool) -> str:
    """Writes a distance or share of the first repeat, with the error that its estimator states."""
    if floor:
        entry = group.metrics.get(name)
        mean = entry.floor.mean if entry and entry.floor else None
        return MISSING if mean is None else number(mean)
    estimate = group.challenge.get(name) or {}
    return MISSING if estimate.get("value") is None else number(estimate["value"], estimate.get("error"))


def _notes(judged: Sequence[tuple[str, Group]], published: Iterable[str]) -> list[str]:
    notes = list(dict.fromkeys(group.note for _, group in judged if group.note))
    notes.append(
        "Calibrated results, which are the challenge's final ones, raw ones in brackets. Floor: random halves of the "
        "reference against each other; FPD and KPD grow as rows get fewer, so that of halves is too large."
    )
    if any(name in PUBLISHED_SHOWERS for name in published):
        notes.append(
            f"Published: {SOURCE_SHOWERS}. They compare only with the challenge's own files, all rows."
        )
    return notes


def separations_table(scores: Sequence[Scores], stem: str) -> Table:
    """Compares the separation powers, each kind's mean over its histograms with the largest in brackets."""
    judged = _judged(scores, stem)
    published = SEPARATIONS.get(str(judged[0][1].challenge["data_set"]), {}) if judged else {}
    columns = [Column(name) for name, _ in judged]
    columns += [Column("CaloDREAM, published"), Column("GEANT4, published")] if published else []
    rows = []
    for kind, metric in GROUPS.items():
        cells = []
        for _, group in judged:
            named = group.challenge["separations"].items()
            values = [value for name, value in named if _kind(name) == kind and value is not None]
            several = f" (largest {number(max(values))})" if len(values) > 1 else ""
            cells.append(Cell(f"{number(float(np.mean(values)))}{several}" if values else MISSING))
        cells += [Cell(text) for text in published.get(metric, (MISSING, MISSING))] if published else []
        rows.append(Row(kind, "all", tuple(cells)))
    return Table(
        "separation power", tuple(columns), tuple(rows), ("Means over layers, the largest in brackets.",)
    )


def _kind(name: str) -> str:
    """Returns the kind of a histogram; those at single energies have none."""
    kind, _, which = name.partition(" ")
    return "" if which.endswith("MeV") else kind


def histograms_table(scores: Sequence[Scores], stem: str) -> Table:
    """Shows the separation power of every histogram of the challenge: one row each, one column a model."""
    judged = _judged(scores, stem)
    names = dict.fromkeys(name for _, group in judged for name in group.challenge["separations"])
    rows = []
    for name in names:
        values = [group.challenge["separations"].get(name) for _, group in judged]
        cells = (Cell(MISSING if value is None else number(value)) for value in values)
        rows.append(Row(name, "all", tuple(cells)))
    return Table("histogram", tuple(Column(name) for name, _ in judged), tuple(rows))
