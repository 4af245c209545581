"""A bundle: a trained model as a folder that runs with NumPy and ONNX Runtime alone.

response.onnx    conditions (B, F), noise (B, D) -> responses (B, *shape), or channels (B, K) for a readout; with
given.onnx       and
step.onnx        where an event is drawn token by token: what each takes and gives is in `runtime.tokens`
par04.onnx       where it was exported for Geant4: (B, D + F) -> cells (B, cells) in Par04's order (`export.geant4`)
zero.onnx        where the bundle was given a zero response: conditions (B, F) -> P(ZN), P(ZP), P(any) (B, 3)
card.json        what it is: detector, features and units, channel maps, recipe, data and their hashes, split, seed,
                 scores, rounding rule, domain, opset, how well it agrees with PyTorch, hash of the graph
SHA256SUMS       hashes of these, as `sha256sum -c` reads them

Loading refuses a bundle that is damaged or incomplete, of a newer format, or made for another detector than this
installation knows by that name.

Promises. At a fixed batch size the bytes of event k depend on the seed and k alone: not on threads, shards, order
or whether a job was resumed. Batches are `BATCH` events (fewer where fewer are asked for), or as many as the
caller says; another batch size may move single photons where a sum lies within rounding of a whole number. `exact`
fills every batch up to `BATCH`, so that it does not matter how many events are asked for at once. All this holds
on one type of CPU; on another, events agree but for such photons.

With a zero response the bundle takes any primary, not only those that are known to leave a response: which ones do
is decided first (`runtime.hits`), and the others get an empty one. Its domain is that of the primaries which the
zero response was trained on; the card keeps the generator's own beside it, under `zero`.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from caloforge.detectors import Detector, detector_named
from caloforge.events import Events, ParticleSource, Primaries
from caloforge.io.card import DataFile
from caloforge.io.content import trained_on
from caloforge.io.files import read_json, sha256, write_json, write_text
from caloforge.io.typed import checked
from caloforge.runtime import hits
from caloforge.runtime.domain import Domain, OnOutside, check_choice
from caloforge.runtime.generate import Forward, Generated, Particles, Responds, generate_rows
from caloforge.runtime.session import Probabilities, Runtime, Session
from caloforge.runtime.tokens import GIVEN, RESPONSE, STEP, TokenSession

FORMAT = 1
GRAPH, CARD, SUMS = RESPONSE, "card.json", "SHA256SUMS"
ZERO = "zero.onnx"
PAR04 = "par04.onnx"
OPTIONAL = (GIVEN, STEP, ZERO, PAR04)
"""Graphs that some bundles have beside the response."""

BATCH = 32
"""Events at once: beyond it time an event hardly falls, and memory grows."""


def is_bundle(path: Path) -> bool:
    """Tells a bundle, whole or not, from a run folder."""
    return any((path / name).is_file() for name in (GRAPH, SUMS))


def open_bundle(folder: Path, threads: int = 1, runtime: Runtime = "onnxruntime") -> Session | TokenSession:
    """Opens the graph, or the graphs, of a folder: a function of conditions (B, F) and noise (B, D)."""
    if (folder / STEP).is_file():
        return TokenSession(folder, threads, runtime)
    return Session(folder / GRAPH, threads, runtime)


def channel_maps(detector: Detector) -> dict[str, dict[str, Any]]:
    """Returns labels, origin and hash of each channel map, for the card."""
    return {
        name: {
            "labels": list(channels.labels),
            "source": channels.source,
            "sha256": hashlib.sha256(channels.matrix.tobytes()).hexdigest(),
        }
        for name, channels in detector.channels.items()
    }


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    """Writes the card beside the graphs, and the hashes of all."""
    graphs = [name for name in (GRAPH, *OPTIONAL) if (folder / name).is_file()]
    full = {
        "format": FORMAT,
        "bundle": True,
        **card,
        "files": {name: sha256(folder / name) for name in graphs},
    }
    write_json(folder / CARD, full)
    write_text(folder / SUMS, "".join(f"{sha256(folder / name)}  {name}\n" for name in (CARD, *graphs)))


def read_card(folder: Path) -> dict[str, Any]:
    """Reads and checks a bundle's card and the hashes of its files.

    Raises:
        ValueError: the bundle is incomplete, damaged or of a newer format.
    """
    if not folder.is_dir():
        raise ValueError(f"no bundle {folder}: there is no such folder")
    for name in (CARD, GRAPH, SUMS):
        if not (folder / name).is_file():
            raise ValueError(f"the bundle {folder} has no {name}: it is incomplete, copy it again as a whole")
    try:
        lines = [line.split("  ") for line in (folder / SUMS).read_text(encoding="ascii").splitlines()]
        digests = {name: digest for digest, name in lines}
    except ValueError:
        raise _damaged(folder, SUMS) from None
    if not digests.keys() <= {CARD, GRAPH, *OPTIONAL}:
        raise _damaged(folder, SUMS)
    for name in {CARD, GRAPH, *digests}:
        if not (folder / name).is_file():
            raise ValueError(f"the bundle {folder} has no {name}: it is incomplete, copy it again as a whole")
        if digests.get(name) != sha256(folder / name):
            raise _damaged(folder, name)
    card: dict[str, Any] = read_json(folder / CARD)
    version = card.get("format")
    if not isinstance(version, int) or version > FORMAT:
        raise ValueError(
            f"the bundle {folder} has format {version}, this version of caloforge reads up to {FORMAT}: "
            "install a newer one"
        )
    if card["files"] != {name: digest for name, digest in digests.items() if name != CARD}:
        raise _damaged(folder, GRAPH)
    return card


def _damaged(folder: Path, name: str) -> ValueError:
    return ValueError(
        f"the bundle {folder} is damaged: {name} is not what {SUMS} says; copy it again as a whole"
    )


def check_detector(card: Mapping[str, Any], *, trust: bool = False) -> Detector:
    """Returns the detector of a card.

    Args:
        card: of a bundle.
        trust: run code outside the package that the card names.

    Raises:
        ValueError: this installation's detector of that name is another one.
    """
    detector = detector_named(card["detector"], trust=trust)
    own = {
        "shape": list(detector.shape),
        "unit": detector.unit,
        "features": list(detector.features),
        "units": [feature.unit for feature in detector.conditions],
        "channel_maps": channel_maps(detector),
    }
    for name, value in own.items():
        if card[name] != value:
            shown = (
                "definitions that differ"
                if name == "channel_maps"
                else f"{_listed(card[name])}, here it has {_listed(value)}"
            )
            raise ValueError(
                f"the bundle was made for a detector {detector.name} with other {name.replace('_', ' ')}: {shown}"
            )
    return detector


def _listed(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


@dataclass(frozen=True, eq=False)
class Surrogate:
    """A bundle ready to generate.

    Attributes:
        detector: the detector it imitates.
        card: what the bundle says of itself.
        domain: what it was trained on.
        session: the graph, or the graphs and their loop.
        zero: the graph of the zero response; None where every particle is taken to leave a response.
    """

    detector: Detector
    card: Mapping[str, Any]
    domain: Domain
    session: Session | TokenSession
    zero: Probabilities | None = None

    @classmethod
    def load(
        cls, path: str | Path, *, threads: int = 1, trust: bool = False, runtime: Runtime = "onnxruntime"
    ) -> Surrogate:
        """Loads a bundle.

        Args:
            path: the folder.
            threads: threads of one batch.
            trust: run code outside the package that the card names.
            runtime: what runs the graphs; another one gives other bytes, in agreement as in the card.

        Raises:
            ValueError: the bundle is incomplete or damaged, of a newer format, or made for another detector.
        """
        folder = Path(path)
        card = read_card(folder)
        detector = check_detector(card, trust=trust)
        session = open_bundle(folder, threads, runtime)
        got = (session.features, session.noise_dim, session.shape)
        output = (len(card["channel_maps"][card["channels"]]["labels"]),)
        shape = output if card["kind"] == "readout" else detector.shape
        if got != (len(detector.features), card["noise_dim"], shape):
            raise ValueError(f"the graph in {folder} does not fit its card: it has {got}")
        zero = Probabilities(folder / ZERO, threads, runtime) if "zero" in card else None
        return cls(detector, card, Domain.from_card(card["domain"]), session, zero)

    def check(self, primaries: ParticleSource, on_outside: OnOutside = "error") -> NDArray[np.bool_]:
        """Compares particles with the training events, slice by slice.

        Args:
            primaries: the particles, in memory or in a file (`io.open_particles`).
            on_outside: `error` raises, `warn` warns, `flag` does neither.

        Returns:
            whether each is inside the domain, (N,).

        Raises:
            ValueError: particles of another detector, or (`error`) outside the domain.
        """
        check_choice(on_outside)
        theirs = primaries.detector
        if theirs.name != self.detector.name or theirs.features != self.detector.features:
            raise ValueError(
                f"the bundle is for {self.detector.name} with {', '.join(self.detector.features)}, "
                f"got particles of {theirs.name} with {', '.join(theirs.features)}"
            )
        return self.domain.check(primaries, on_outside, lambda problem: warnings.warn(problem, stacklevel=4))

    def source(
        self,
        primaries: Particles,
        *,
        seed: int = 0,
        first_event: int = 0,
        batch_size: int | None = None,
        exact: bool = False,
    ) -> Generated[Particles]:
        """Returns events that are generated when they are read, for writing them in constant memory.

        The domain is not looked at: see `check`. Arguments as for `sample`.
        """
        batch = chosen_batch(len(primaries), batch_size, exact)
        return Generated(
            cast(Forward, self.session),
            self.session.noise_dim,
            primaries,
            seed,
            first_event,
            batch,
            self._responds(seed, batch),
            self._whole,
            self.card["channels"],
            self.card["kind"] == "readout",
        )

    @property
    def _whole(self) -> bool:
        """Whether the graph rounds to photons."""
        return self.detector.counts and self.card.get("rounding", "none") not in ("", "none")

    def _responds(self, seed: int, batch_size: int) -> Responds | None:
        """Returns what decides which events have a response; None where all have."""
        zero = self.zero
        if zero is None:
            return None

        def responds(conditions: NDArray[np.float32], events: NDArray[np.integer]) -> NDArray[np.bool_]:
            probabilities = generate_rows(lambda x, _: zero(x), 0, conditions, seed, batch_size=batch_size)
            return hits.responds(self.detector.name, probabilities, hits.uniforms(seed, events))

        return responds

    def sample(
        self,
        primaries: Primaries,
        *,
        seed: int = 0,
        first_event: int = 0,
        batch_size: int | None = None,
        exact: bool = False,
        on_outside: OnOutside = "error",
    ) -> Events:
        """Generates one response for each particle.

        Args:
            primaries: the particles.
            seed: 0 to 2^64 - 1.
            first_event: number of the first particle's event: a shard or a resumed job starts where it is.
            batch_size: events at once; `BATCH` where not given, or as many as there are.
            exact: batches of `BATCH` however few are asked for.
            on_outside: what to do about particles unlike those of the training.

        Raises:
            ValueError: particles of another detector, outside the domain, or a model of channel sums alone.
        """
        source = self.source(
            primaries, seed=seed, first_event=first_event, batch_size=batch_size, exact=exact
        )
        self.check(primaries, on_outside)
        return source.slices(slice(None))

    def channel_sums(
        self,
        primaries: Primaries,
        *,
        seed: int = 0,
        first_event: int = 0,
        batch_size: int | None = None,
        exact: bool = False,
        on_outside: OnOutside = "error",
    ) -> NDArray[np.float64]:
        """Predicts channel sums in the detector's unit, (N, K); arguments as for `sample`."""
        source = self.source(
            primaries, seed=seed, first_event=first_event, batch_size=batch_size, exact=exact
        )
        self.check(primaries, on_outside)
        return source.sums(slice(None))[1]


def chosen_batch(events: int, batch_size: int | None, exact: bool) -> int:
    """Returns the batch size: `BATCH`, or as many as there are, or what the caller wants."""
    if exact and batch_size not in (None, BATCH):
        raise ValueError(f"exact fixes the batch at {BATCH} events, got a batch size of {batch_size}")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"the batch size must be at least 1, got {batch_size}")
    return BATCH if exact else batch_size or max(min(BATCH, events), 1)


def origin_of_bundle(card: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Returns what a file of generated events says of the bundle it came from."""
    return {
        "run": card["name"],
        "split": card["split"],
        "split_seed": card["seed"],
        "particles": card["particles"],
        **trained_on(checked(DataFile, entry) for entry in card.get("data", ())),
        "bundle": sha256(folder / CARD),
        "settings": card["settings"],
        **({"replica": card["replica"]} if "replica" in card else {}),
        **({"zero_response": card["zero"]["name"]} if "zero" in card else {}),
    }
