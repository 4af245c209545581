"""Names, masses and charges of particles, from the PDG tables of the `particle` package."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cache

from caloforge._lookup import nearest

_TABLES = threading.Lock()
"""The package reads its tables at the first question, and a second thread must not ask meanwhile."""


@cache
def particle_name(pdg: int) -> str:
    """Returns the PDG name, such as "n", "gamma" or "K(S)0"; the number itself for an unknown id."""
    from particle import InvalidParticle, Particle, ParticleNotFound

    try:
        with _TABLES:
            return str(Particle.from_pdgid(pdg).name)
    except (InvalidParticle, ParticleNotFound):
        return str(pdg)


@cache
def mass_and_charge(pdg: int) -> tuple[float, float]:
    """Returns mass in GeV and charge in e from the PDG tables; NaN for an unknown id."""
    from particle import InvalidParticle, Particle, ParticleNotFound

    try:
        with _TABLES:
            particle = Particle.from_pdgid(pdg)
    except (InvalidParticle, ParticleNotFound):
        return float("nan"), float("nan")
    # the tables are in MeV, and leave out the masses of neutrinos
    return 1e-3 * float(particle.mass or 0.0), float(particle.charge or 0.0)


@cache
def _known() -> dict[str, int]:
    from particle import Particle

    # the tables call the neutron "n" twice, as a particle and as a nucleus of one: the shorter id is meant
    with _TABLES:
        ids = sorted((int(particle.pdgid) for particle in Particle.all()), key=abs, reverse=True)
    return {particle_name(pdg): pdg for pdg in ids}


def pdg_ids(names: Sequence[str]) -> list[int]:
    """Returns the PDG ids of particles named as in the PDG tables, or by the number itself.

    Raises:
        ValueError: an unknown name; the message gives the nearest known one.
    """
    known = _known()
    ids = []
    for name in names:
        if name in known:
            ids.append(known[name])
        elif name.lstrip("-").isdigit():
            ids.append(int(name))
        else:
            raise ValueError(f"no particle {name!r} in the PDG tables{nearest(name, known)}")
    return ids
