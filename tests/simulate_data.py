"""Where tests find Geant4's data sets: the substitutes beside the checkout, or those of this machine."""

from pathlib import Path

from caloforge.simulate import find_data

SUBSTITUTES = Path(__file__).parents[2] / "shared" / "g4data"


def _found() -> Path | None:
    if SUBSTITUTES.is_dir():
        return SUBSTITUTES
    try:
        return find_data("G4EmStandardPhysics").folders["G4LEDATA"].parent
    except (ValueError, KeyError):
        return None


G4DATA = _found()

SUBSTITUTED = G4DATA is not None and find_data("G4EmStandardPhysics", G4DATA).origin == "substitutes"
"""Whether they are the substitutes, wherever they lie."""
