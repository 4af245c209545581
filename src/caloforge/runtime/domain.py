"""The domain of a surrogate: which particles are like those it was trained on.

A network answers whatever it is asked. A particle is inside the domain where

1. it is one particle: mass and charge are those of its PDG id (the tables of the `particle` package), and
   E^2 = p^2 + m^2;
2. its PDG id occurs in the training events;
3. each feature lies between the least and the greatest of the training events; where the detector has a face so
   does the point at which the particle's straight line meets it;
4. all of these together do: their Mahalanobis distance is at most the greatest of the training events. Each is
   first replaced by its normal score s = Phi^-1(F(x)), F the distribution in the training events (33 quantiles),
   since vertices of decays have long tails; then d^2 = (s - m)^T (C + 10^-3)^-1 (s - m) with mean m and
   covariance C of the scores.

So every training event is inside. Rules that need a feature a detector lacks are left out. The statistics are
plain numbers in the card of a run and of a bundle.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from statistics import NormalDist
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from caloforge.events import RAY, SLICE, ParticleSource, Primaries
from caloforge.particles import mass_and_charge, particle_name

OnOutside = Literal["error", "warn", "flag"]
"""What to do about particles outside: refuse them, say so, or only mark them."""

MASS_TOLERANCE = 2e-3
"""Relative difference of a mass from the table's."""

SMALL_MASS = 1e-4
"""Absolute difference of a mass from the table's that is always allowed, in GeV."""

ENERGY_TOLERANCE = 1e-4
"""Relative difference of E from (p^2 + m^2)^1/2."""

_REGULAR = 1e-3
_QUANTILES = 33
_SLACK = 1 + 1e-6
"""Rounding of the distance itself, which goes through a matrix product."""


@dataclass(frozen=True, eq=False)
class Domain:
    """The training events in a few numbers.

    Attributes:
        coordinates: names of what is looked at, C: the features, and `impact x`, `impact y`.
        particles: PDG ids of the training events.
        quantiles: of each coordinate, from the least to the greatest value, (C, 33).
        mean: mean of the normal scores, (C,).
        whitening: W with d = |W (s - m)|, (C, C).
        distance: the greatest distance of a training event.
        rows: number of training events.
    """

    coordinates: tuple[str, ...]
    particles: tuple[int, ...]
    quantiles: NDArray[np.float64]
    mean: NDArray[np.float64]
    whitening: NDArray[np.float64]
    distance: float
    rows: int

    @classmethod
    def fit(cls, primaries: Primaries, displaced: Primaries | None = None) -> Domain:
        """Takes the statistics of training particles.

        Args:
            primaries: the training particles.
            displaced: the same with vertices from within the beam spot, which are inside as well.
        """
        names, x = coordinates(primaries)
        rows = len(x)
        if displaced is not None:
            x = np.concatenate([x, coordinates(displaced)[1]])
        quantiles = np.quantile(x, np.linspace(0, 1, _QUANTILES), axis=0).T
        scores = _scores(x, _knots(quantiles))
        mean = scores.mean(0)
        values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(scores.T, bias=True)))
        whitening = (vectors / np.sqrt(values + _REGULAR)).T
        return cls(
            coordinates=names,
            particles=tuple(int(pdg) for pdg in np.unique(primaries.pdg)),
            quantiles=quantiles,
            mean=mean,
            whitening=whitening,
            distance=float(np.linalg.norm((scores - mean) @ whitening.T, axis=1).max()),
            rows=rows,
        )

    @classmethod
    def from_card(cls, values: Mapping[str, Any]) -> Domain:
        """Reads what `to_card` gave."""
        arrays = ("quantiles", "mean", "whitening")
        return cls(
            coordinates=tuple(values["coordinates"]),
            particles=tuple(values["particles"]),
            distance=float(values["distance"]),
            rows=int(values["rows"]),
            **{name: np.array(values[name], np.float64) for name in arrays},
        )

    def to_card(self) -> dict[str, Any]:
        """Returns plain numbers; JSON keeps every digit of them."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()
        }

    @cached_property
    def _knots(self) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        return _knots(self.quantiles)

    @cached_property
    def _ladders(self) -> list[tuple[list[float], list[float], list[float]]]:
        """Of each coordinate its different quantiles, their scores, and the slopes of the scores after each."""
        ladders = []
        for edges, scores in self._knots:
            slopes = np.append(np.diff(scores) / np.diff(edges), 0.0)
            ladders.append((edges.tolist(), scores.tolist(), slopes.tolist()))
        return ladders

    @cached_property
    def _table(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """PDG ids of the training events in order, their masses and charges, (P,) each."""
        kinds = np.unique(np.array(self.particles, np.int64))
        masses, charges = np.array([mass_and_charge(int(pdg)) for pdg in kinds], np.float64).reshape(-1, 2).T
        return kinds, masses, charges

    def distances(self, primaries: Primaries) -> NDArray[np.float64]:
        """Returns the Mahalanobis distance of each particle, (N,)."""
        return self._distances(coordinates(primaries)[1])

    def _distances(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the distances of coordinates, (N, C)."""
        away = (_scores(x, self._knots) - self.mean) @ self.whitening.T
        return np.asarray(np.sqrt((away * away).sum(1)))

    def _inside(self, primaries: Primaries) -> NDArray[np.bool_]:
        """Tells which particles break none of the rules of `problems`, (N,), from tables that are made once."""
        x = coordinates(primaries)[1]
        kinds, masses, charges = self._table
        kind = np.minimum(kinds.searchsorted(primaries.pdg), len(kinds) - 1)
        outside = kinds[kind] != primaries.pdg
        outside |= ((x < self.quantiles[:, 0]) | (x > self.quantiles[:, -1])).any(1)
        outside |= self._distances(x) > self.distance * _SLACK
        for _, wrong in _no_particles(primaries.detector.features, x, masses[kind], charges[kind]):
            outside |= wrong
        inside: NDArray[np.bool_] = ~outside
        return inside

    @cached_property
    def _kinds(self) -> dict[int, tuple[float, float]]:
        """Masses and charges of the PDG ids of the training events."""
        kinds, masses, charges = self._table
        return {
            int(pdg): (float(mass), float(charge))
            for pdg, mass, charge in zip(kinds, masses, charges, strict=True)
        }

    def _one_inside(self, primaries: Primaries) -> bool:
        """Tells of one particle what `_inside` does, in plain numbers: there calls of NumPy take four times as long."""
        kind = self._kinds.get(int(primaries.pdg[0]))
        if kind is None:
            return False
        x: list[float]
        detector, x = primaries.detector, primaries.conditions[0].tolist()
        features = detector.features
        known = dict(zip(features, x, strict=True))
        if detector.face is not None and len(_columns(features, RAY)):
            vx, vy, vz, px, py, pz = (known[name] for name in RAY)
            length = (detector.face.z - math.copysign(bool(pz), pz) * vz) / max(abs(pz), 1e-6)
            x += [vx + px * length, vy + py * length]
        scores = []
        for value, (edges, values, slopes) in zip(x, self._ladders, strict=True):
            at = bisect_right(edges, value) - 1
            if at < 0 or value > edges[-1]:
                return False
            scores.append(slopes[at] * (value - edges[at]) + values[at])
        away = (np.array(scores) - self.mean) @ self.whitening.T
        if math.sqrt(away @ away) > self.distance * _SLACK:
            return False
        return _is_particle(known, *kind)

    def problems(self, primaries: Primaries) -> dict[str, NDArray[np.bool_]]:
        """Returns for each rule, named as in messages, the rows that break it, (N,)."""
        problems = dict(inconsistencies(primaries))
        problems["a PDG id that is not among the training events"] = ~np.isin(primaries.pdg, self.particles)
        _, x = coordinates(primaries)
        for name, column, (low, *_, high) in zip(self.coordinates, x.T, self.quantiles, strict=True):
            problems[f"{name} outside {low:g} to {high:g}"] = (column < low) | (column > high)
        far = self.distances(primaries) > self.distance * _SLACK
        problems["an unusual combination of features"] = far
        return problems

    def inspect(self, primaries: ParticleSource) -> tuple[NDArray[np.bool_], str]:
        """Looks at every particle, slice by slice.

        Returns:
            whether each is inside the domain, (N,); and what is outside, in one sentence, empty where nothing is.
        """
        inside = np.ones(len(primaries), np.bool_)
        counts: Counter[str] = Counter()
        first = ""
        for start in range(0, len(inside), SLICE):
            rows_of_part = slice(start, start + SLICE)
            if isinstance(primaries, Primaries) and len(inside) <= SLICE:
                part = primaries
            else:
                part = primaries.select(rows_of_part)
            inside[rows_of_part] = self._one_inside(part) if len(part) == 1 else self._inside(part)
            if inside[rows_of_part].all():
                continue
            for name, rows in self.problems(part).items():
                counts[name] += int(np.count_nonzero(rows))
            if not first:
                row = int(np.argmin(inside))
                first = f"row {row}, {particle_name(int(part.pdg[row - start]))}"
        if not first:
            return inside, ""
        reasons = "; ".join(f"{count:,} with {name}" for name, count in counts.items() if count)
        return inside, (
            f"{np.count_nonzero(~inside):,} of {len(inside):,} particles are outside the domain the surrogate was "
            f"trained on: {reasons} (the first in {first})"
        )

    def check(
        self, primaries: ParticleSource, on_outside: str, warn: Callable[[str], None]
    ) -> NDArray[np.bool_]:
        """Looks at every particle and does what is wanted about those outside; the one place that does.

        Args:
            primaries: the particles, in memory or in a file.
            on_outside: `error` raises, `warn` warns, `flag` does neither.
            warn: takes the warning.

        Returns:
            whether each is inside the domain, (N,).

        Raises:
            ValueError: another choice, or (`error`) particles outside.
        """
        check_choice(on_outside)
        inside, problem = self.inspect(primaries)
        if problem and on_outside == "error":
            raise ValueError(
                f"{problem}; --on-outside warn or flag (Python: on_outside) generates them all the same"
            )
        if problem and on_outside == "warn":
            warn(problem)
        return inside

    def inside(self, primaries: ParticleSource) -> NDArray[np.bool_]:
        """Returns for each particle whether it is inside the domain, (N,)."""
        return self.inspect(primaries)[0]

    def explain(self, primaries: ParticleSource) -> str:
        """Returns what is outside, in one sentence; empty where nothing is."""
        return self.inspect(primaries)[1]


def check_choice(on_outside: str) -> None:
    """Raises ValueError unless `on_outside` is one of the choices."""
    if on_outside not in get_args(OnOutside):
        raise ValueError(f"on_outside must be one of {', '.join(get_args(OnOutside))}, got {on_outside!r}")


def coordinates(primaries: Primaries) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Returns the names and values of what the domain looks at, (C,) and (N, C): features, point of impact in cm."""
    detector, x = primaries.detector, primaries.conditions.astype(np.float64)
    features = detector.features
    ray = _columns(features, RAY)
    if detector.face is None or not len(ray):
        return features, x
    *_, vz, _, _, pz = x[:, ray].T
    length = (detector.face.z - np.sign(pz) * vz) / np.maximum(np.abs(pz), 1e-6)
    every = np.empty((len(x), len(features) + 2))
    every[:, :-2] = x
    every[:, -2:] = x[:, ray[:2]] + x[:, ray[3:5]] * length[:, None]
    return (*features, "impact x", "impact y"), every


@lru_cache
def _columns(features: tuple[str, ...], names: tuple[str, ...]) -> NDArray[np.intp]:
    """Returns the columns of some features; none where one of them is not there."""
    there = set(names) <= set(features)
    return np.array([features.index(name) for name in names] if there else [], np.intp)


def _knots(quantiles: NDArray[np.float64]) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Returns of each coordinate its different quantiles and their normal scores; equal ones share their mean."""
    size = quantiles.shape[1]
    normals = np.array([NormalDist().inv_cdf((i + 0.5) / size) for i in range(size)])
    knots = []
    for edges in quantiles:
        different, index = np.unique(edges, return_inverse=True)
        knots.append((different, np.bincount(index, normals) / np.bincount(index)))
    return knots


def _scores(
    x: NDArray[np.float64], knots: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]
) -> NDArray[np.float64]:
    """Returns the normal scores of coordinates, (N, C)."""
    return np.array([np.interp(column, *each) for column, each in zip(x.T, knots, strict=True)]).T


def inconsistencies(primaries: Primaries) -> Sequence[tuple[str, NDArray[np.bool_]]]:
    """Returns the rows that are no particle, rule by rule."""
    kinds, kind = np.unique(primaries.pdg, return_inverse=True)
    table = np.array([mass_and_charge(int(pdg)) for pdg in kinds], np.float64).reshape(len(kinds), 2)[kind]
    x = primaries.conditions.astype(np.float64)
    return _no_particles(primaries.detector.features, x, *table.T)


def _no_particles(
    features: tuple[str, ...],
    x: NDArray[np.float64],
    masses: NDArray[np.float64],
    charges: NDArray[np.float64],
) -> Sequence[tuple[str, NDArray[np.bool_]]]:
    """Returns the rows that are no particle, given the masses and charges of their PDG ids, NaN for unknown ones.

    Args:
        features: names of the first columns of x.
        x: features, (N, C).
        masses: in GeV, (N,).
        charges: in units of e, (N,).
    """
    problems = []
    if "mass" in features or "charge" in features:
        problems.append(("a PDG id that is not in the tables", np.isnan(masses)))
    if "mass" in features:
        allowed = np.maximum(MASS_TOLERANCE * masses, SMALL_MASS)
        wrong = np.abs(x[:, features.index("mass")] - masses) > allowed
        problems.append(("a mass that is not the PDG id's", wrong))
    if "charge" in features:
        wrong = np.abs(x[:, features.index("charge")] - charges) > 1e-3
        problems.append(("a charge that is not the PDG id's", wrong))
    columns = _columns(features, ("px", "py", "pz", "mass"))
    if "energy" in features and len(columns):
        energy, parts = x[:, features.index("energy")], x[:, columns]
        wrong = np.abs(energy - np.sqrt((parts * parts).sum(1))) > ENERGY_TOLERANCE * energy
        problems.append(("an energy that is not sqrt(p^2 + m^2)", wrong))
    return problems


def _is_particle(features: Mapping[str, float], mass: float, charge: float) -> bool:
    """Tells whether one particle keeps the rules of `_no_particles`, given the mass and the charge of its PDG id."""
    if math.isnan(mass) and ("mass" in features or "charge" in features):
        return False
    if "mass" in features and abs(features["mass"] - mass) > max(MASS_TOLERANCE * mass, SMALL_MASS):
        return False
    if "charge" in features and abs(features["charge"] - charge) > 1e-3:
        return False
    if not {"energy", "px", "py", "pz", "mass"} <= features.keys():
        return True
    squares = sum(features[name] ** 2 for name in ("px", "py", "pz", "mass"))
    return not abs(features["energy"] - math.sqrt(squares)) > ENERGY_TOLERANCE * features["energy"]
