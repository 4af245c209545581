"""Features of a particle that follow from its conditions and the detector's geometry.

None has an inverse, so they are no transforms: they add what a network would have to find out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from caloforge.detectors import Detector, Face
from caloforge.events import RAY
from caloforge.nn.hyperbolic import arcsinh

EDGE = 0.1
"""Length, in cm, below which the position is resolved linearly near the centre of the face."""

VERTEX = 0.01
"""Length, in cm, below which vz is resolved linearly."""

_SMALLEST = 1e-6
"""Energy below which its logarithm stays as it is."""

_STEEP = 1e12
"""How fast a condition that is met rises beyond every depth within a groove."""

_NEEDED = ("energy", "vx", "vy", "vz", "px", "py", "pz", "charge")


class ImpactFeatures(nn.Module):
    """Appends to the conditions what they mean at the detector.

    - (x, y), where the straight line of the particle meets the plane of the detector's face, from the centre of
      the face, as it is and as arcsinh(x / EDGE), which is fine near the centre, where the quadrants meet;
    - ln E, and arcsinh(vz / VERTEX), since decays make vz heavy-tailed;
    - for neutral particles the place within the grid of fibres: with a = pi x / pitch and b = pi y / pitch, the
      products of sin a, cos a with sin b, cos b, and their harmonics. Fibres alternate between two readouts like
      the fields of a chessboard, so sin a sin b says in which of them a narrow photon shower starts, and the
      harmonics how near to a fibre.


    Args:
        detector: a detector with a face, a pitch and the features energy, vertex, momentum and charge.

    Raises:
        ValueError: the detector lacks one of them.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        if detector.face is None or detector.pitch is None or not set(_NEEDED) <= set(detector.features):
            raise ValueError(
                f"derived features need a face, a pitch and the conditions {', '.join(_NEEDED)}; "
                f"{detector.name} has face {detector.face}, pitch {detector.pitch} and "
                f"{', '.join(detector.features)}"
            )
        self._face, self._pitch = detector.face, detector.pitch
        self._middle = tuple((size - 1) / 2 for size in detector.shape)
        self._columns = [detector.features.index(name) for name in _NEEDED]
        self.size = len(detector.features) + 17

    def impact(self, conditions: Tensor) -> Tensor:
        """Returns where the straight line meets the face, in cm from the axis, (B, 2) float64."""
        return _impact(_chosen(conditions, self._columns), self._face.z)

    def cell(self, conditions: Tensor) -> Tensor:
        """Returns the same in cells from the first, (B, 2), of the dtype of the conditions."""
        if torch.compiler.is_exporting():
            centre = torch.tensor([self._face.x, self._face.y], dtype=torch.float64)
            shift = torch.tensor(self._middle, dtype=torch.float64) - centre / self._pitch
            steps = torch.eye(2, dtype=torch.float64) / self._pitch
            return nn.functional.linear(self.impact(conditions), steps, shift).to(conditions.dtype)
        cells = [
            position / self._pitch + middle
            for position, middle in zip(self._from_centre(conditions), self._middle, strict=True)
        ]
        return torch.stack(cells, 1).to(conditions.dtype)

    def _from_centre(self, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Returns x and y of the impact in cm from the centre of the face, each (B,) float64."""
        x, y = self.impact(conditions).unbind(1)
        return x - self._face.x, y - self._face.y

    def forward(self, conditions: Tensor) -> Tensor:
        """Maps conditions in physical units, (B, F), to (B, size)."""
        energy, *_, vz, _, _, _, charge = (conditions[:, column].double() for column in self._columns)
        x, y = self._from_centre(conditions)
        neutral = (charge == 0).double()
        a, b = math.pi * x / self._pitch, math.pi * y / self._pitch
        sin_a, cos_a, sin_b, cos_b = torch.sin(a), torch.cos(a), torch.sin(b), torch.cos(b)
        cos_2a, cos_2b = torch.cos(2 * a), torch.cos(2 * b)
        within = [
            sin_a * sin_b,
            sin_a * cos_b,
            cos_a * sin_b,
            cos_a * cos_b,
            torch.sin(2 * a),
            cos_2a,
            torch.sin(2 * b),
            cos_2b,
            cos_2a * cos_2b,
            torch.cos(4 * a),
            torch.cos(4 * b),
        ]
        derived = [
            x,
            y,
            _arcsinh(x / EDGE),
            _arcsinh(y / EDGE),
            torch.log(energy),
            _arcsinh(vz / VERTEX),
            *(neutral * wave for wave in within),
        ]
        return torch.cat([conditions, torch.stack(derived, 1).to(conditions.dtype)], 1)


def _waves() -> tuple[Tensor, Tensor, Tensor]:
    """Returns waves whose sums are the products of `ImpactFeatures`: phases (2, 12), shifts (12,), sums (12, 11)."""
    sums = (1, -1), (1, 1), (2, -2), (2, 2)  # of a and b
    a, b = (2, 0), (0, 2)
    phases = [*sums[:2], *sums[:2], a, a, b, b, *sums[2:], (4, 0), (0, 4)]
    cosines = [2, 3, 5, 7, 8, 9, 10, 11]
    turns = torch.zeros(12, dtype=torch.float64)
    turns[cosines] = math.pi / 2
    table = torch.zeros(12, 11, dtype=torch.float64)
    table[[2, 3], 0] = torch.tensor([0.5, -0.5], dtype=torch.float64)  # sin a sin b
    table[[0, 1], 1] = 0.5  # sin a cos b
    table[[0, 1], 2] = torch.tensor([-0.5, 0.5], dtype=torch.float64)  # cos a sin b
    table[[2, 3], 3] = 0.5  # cos a cos b
    table[[4, 5, 6, 7], [4, 5, 6, 7]] = 1.0
    table[[8, 9], 8] = 0.5  # cos 2a cos 2b
    table[[10, 11], [9, 10]] = 1.0
    return torch.tensor(phases, dtype=torch.float64).T.contiguous(), turns, table


_PHASES, _TURNS, _WAVES = _waves()
_AXES = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)


def _linear(x: Tensor, matrix: Sequence[Sequence[float]] | Tensor, shift: Sequence[float]) -> Tensor:
    """Returns a linear function of x, (B, n) float64, with a constant matrix (m, n) and shift (m,): (B, m)."""
    weight, bias = (torch.as_tensor(one, dtype=x.dtype, device=x.device) for one in (matrix, shift))
    return nn.functional.linear(x, weight, bias)


class PromptRays(nn.Module):
    """Writes conditions as if every prompt particle came from the origin, its ray through the same point of the face.

    For networks that read vertex and momentum as they are, as the published ones do, and were trained on primaries from
    one point: where in the beam spot a prompt particle was born then changes nothing. A particle from farther away than
    `PROMPT` stays as it is, and so does everything before a detector without a face.

    Args:
        detector: whose conditions they are.
    """

    PROMPT = (0.1, 0.1, 30.0)
    """Vertices of prompt particles, |x|, |y| and |z| in cm."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self._face = detector.face if set(RAY) <= set(detector.features) else None
        self._columns = [detector.features.index(name) for name in RAY] if self._face else []

    def forward(self, conditions: Tensor) -> Tensor:
        """Maps conditions in physical units, (B, F), to the same, (B, F)."""
        if self._face is None:
            return conditions
        vx, vy, vz, px, py, pz = (conditions[:, column].double() for column in self._columns)
        ahead, side = pz.abs().clamp(min=1e-6), torch.sign(pz)
        length = (self._face.z - side * vz) / self._face.z
        slope_x, slope_y = vx / self._face.z + px / ahead * length, vy / self._face.z + py / ahead * length
        forward = torch.sqrt(px * px + py * py + pz * pz) / torch.sqrt(
            1 + slope_x * slope_x + slope_y * slope_y
        )
        zero = torch.zeros_like(vx)
        turned = (zero, zero, zero, slope_x * forward, slope_y * forward, side * forward)
        limits = torch.as_tensor(self.PROMPT, dtype=vx.dtype, device=vx.device)
        inside = [v.abs() < limit for v, limit in zip((vx, vy, vz), limits.unbind(), strict=True)]
        moved = vx.abs() + vy.abs() + vz.abs() > 0
        prompt = inside[0] & inside[1] & inside[2] & moved
        columns = list(conditions.unbind(1))
        for column, value in zip(self._columns, turned, strict=True):
            columns[column] = torch.where(prompt, value.to(conditions.dtype), columns[column])
        return torch.stack(columns, 1)


class BendingFeatures(nn.Module):
    """What magnets between vertex and detector act on, for charged particles: all are 0 for neutral ones.

    With k = q / E in units of e / TeV, s the side (the sign of pz) and (x, y) where the straight line meets the
    plane of the detector's face, in decimetres: k, k x, k y, k^2, s k, s k x, s k y.

    Args:
        detector: as for `ImpactFeatures`.
    """

    size = 7

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        if detector.face is None or not set(_NEEDED) <= set(detector.features):
            raise ValueError(
                f"features of bending need a face and the conditions {', '.join(_NEEDED)}; {detector.name} has "
                f"face {detector.face} and {', '.join(detector.features)}"
            )
        self._face = detector.face
        self._columns = [detector.features.index(name) for name in _NEEDED]

    def forward(self, conditions: Tensor) -> Tensor:
        """Maps conditions in physical units, (B, F), to (B, 7)."""
        needed = conditions[:, self._columns].double()
        energy, *_, pz, charge = needed.unbind(1)
        x, y = (_impact(needed, self._face.z) / 10).unbind(1)
        k = charge * 1000 / energy.clamp(min=1)
        side = torch.sign(pz) * k
        return torch.stack([k, k * x, k * y, k * k, side, side * x, side * y], 1).to(conditions.dtype)


class TransportFeatures(nn.Module):
    """Where a charged particle meets the plane of the detector's face, by `Transport`: magnets bend its way.

    - (X, Y) from the centre of the face, as it is and as arcsinh(X / EDGE); of neutral particles where the straight
      line meets it;
    - how far within the edges of the face that is, the nearer edge of either axis and of both, as
      arcsinh(distance / MARGIN), and of either axis as smooth steps sigmoid((distance - d) / STEP), d of `STEPS`: light
      rises from nothing to all of the shower within a centimetre;
    - the same (X, Y) for a positive particle of the same momentum, whatever the charge: what a neutral particle turns
      into early on the way.

    Args:
        detector: with a face, a pitch, `transport` and the features of `ImpactFeatures`.

    Raises:
        ValueError: the detector lacks one of them.
    """

    MARGIN = 0.5
    """Distance in cm from an edge below which it is resolved linearly."""

    STEP = 0.3
    """Width of the smooth steps in cm."""

    STEPS = (-1.5, -0.75, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
    """Distances within an edge in cm at which they are."""

    size = 9 + 2 * len(STEPS)

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self._face, self._pitch, self._columns = _placed(detector, "transport")
        assert detector.transport is not None
        self._map = detector.transport
        self._middle = tuple((size - 1) / 2 for size in detector.shape)
        self.maps: Tensor
        self.kick: Tensor
        # kept with the weights, which were trained with them
        self.register_buffer("maps", torch.tensor(self._map.maps, dtype=torch.float64).flatten(2))
        self.register_buffer("kick", torch.tensor(self._map.kick, dtype=torch.float64))

    def place(self, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Returns where particles meet the face, and where positive ones would, in cm from its centre, (B, 2) each."""
        needed = conditions[:, self._columns].double()
        straight = _impact(needed, self._face.z)
        pz, charge = needed[:, 6:7], needed[:, 7:]
        momentum = torch.sqrt(needed[:, 4:7].square().sum(1, keepdim=True)).clamp(min=1e-3)
        near = straight.square().sum(1, keepdim=True) < self._map.NEAR**2
        forward = pz > 0
        positive = self._through(straight, 1 / momentum, forward)
        kick = torch.stack([torch.zeros_like(self.kick), self.kick], 1)
        beside = straight + torch.where(forward, kick[0], kick[1]) * charge / momentum
        bent = torch.where(near & (charge > 0), positive, beside)
        centre = straight.new_tensor((self._face.x, self._face.y))
        return bent - centre, positive - centre

    def cell(self, conditions: Tensor) -> Tensor:
        """Returns where particles meet the face, in cells from the first, (B, 2), of the dtype of the conditions."""
        place, _ = self.place(conditions)
        return (place / self._pitch + place.new_tensor(self._middle)).to(conditions.dtype)

    def forward(self, conditions: Tensor) -> Tensor:
        """Maps conditions in physical units, (B, F), to (B, 25)."""
        place, positive = self.place(conditions)
        half = place.new_tensor([(middle + 0.5) * self._pitch for middle in self._middle])
        inside = half - place.abs()
        edges = place.new_tensor(self.STEPS).repeat_interleave(2)
        steps = torch.sigmoid((torch.cat([inside] * len(self.STEPS), 1) - edges) / self.STEP)
        units = place.new_tensor([EDGE, EDGE, self.MARGIN, self.MARGIN, self.MARGIN])
        distances = torch.cat([place, inside, inside.amin(1, keepdim=True)], 1) / units
        return torch.cat([place, _arcsinh(distances), positive, steps], 1).to(conditions.dtype)

    def written(self, needed: Tensor, impact: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Does what `place` does in fewer operators of an exported graph, (B, 2) float64 each.

        Args:
            needed: the features `_NEEDED`, (B, 8) float64.
            impact: where the straight line meets the face, from the axis, (B, 2) float64.
            place: the same from the centre of the face.
        """
        pz, charge = needed[:, 6:7], needed[:, 7:]
        momentum = torch.linalg.vector_norm(needed[:, 4:7], dim=1, keepdim=True).clamp(min=1e-3)
        near = torch.linalg.vector_norm(impact, dim=1, keepdim=True) < self._map.NEAR
        forward = pz > 0
        low, high = self._map.RANGE
        u = torch.div(impact.new_tensor(self._map.STIFF), momentum).clamp(low, high) - self._map.MIDDLE
        powers = u ** impact.new_tensor(range(5)).repeat(3)
        beside = _linear(impact, _AXES.repeat_interleave(5, 0), [1.0] * 5 + [0.0] * 10)
        centre = impact.new_tensor((self._face.x, self._face.y))
        maps = self.maps - nn.functional.pad(centre[:, None], (0, self.maps.shape[2] - 1))
        both = (powers * beside) @ maps.flatten(0, 1).T
        positive = torch.where(forward, both[:, :2], both[:, 2:])
        kick = torch.stack([torch.zeros_like(self.kick), self.kick], 1)
        straight = place + torch.where(forward, kick[0], kick[1]) * charge / momentum
        return torch.where(near & (charge > 0), positive, straight), positive

    def edges(self, place: Tensor) -> tuple[Tensor, Tensor]:
        """Returns how far within the edges a place is, (B, 3), over `MARGIN`, and what steps are of, (B, 2 steps)."""
        half = place.new_tensor([(middle + 0.5) * self._pitch for middle in self._middle])
        edges = place.new_tensor(self.STEPS).repeat_interleave(2)
        factors = torch.tensor([1 / self.MARGIN] + [1 / self.STEP] * len(self.STEPS)).repeat_interleave(2)
        shifts = (half.repeat(1 + len(self.STEPS)) - torch.cat([torch.zeros(2), edges])) * factors
        matrix = -torch.eye(2).repeat(1 + len(self.STEPS), 1) * factors[:, None]
        inside, steps = nn.functional.linear(place.abs(), matrix, shifts).split([2, len(edges)], 1)
        return torch.cat([inside, inside.amin(1, keepdim=True)], 1), steps

    def _through(self, straight: Tensor, curvature: Tensor, forward: Tensor) -> Tensor:
        """Returns where positive particles meet the face by the map, in cm from the axis, (B, 2)."""
        low, high = self._map.RANGE
        u = (self._map.STIFF * curvature).clamp(low, high) - self._map.MIDDLE
        u2 = u * u
        powers = torch.cat([torch.ones_like(u), u, u2, u2 * u, u2 * u2], 1)
        terms = torch.cat([powers, powers * straight[:, :1], powers * straight[:, 1:]], 1)
        return torch.where(forward, terms @ self.maps[0].T, terms @ self.maps[1].T)


class SpeciesFeatures(nn.Module):
    """Which species a neutral particle is, by its mass: one number for each of `MASSES`, exp(-((m - m_k) / WIDTH)^2).

    The mass itself is one smooth number, by which a neutron and a Lambda are near each other though one passes
    beside a detector and the other decays into a proton that hits it. All are 0 for charged particles, whose way the
    magnets decide: they have too few of each species to do without the others.

    Args:
        detector: with the conditions mass [GeV] and charge.

    Raises:
        ValueError: the detector lacks one of them.
    """

    MASSES = (0.0, 0.4976, 0.9396, 1.1157, 1.3149)
    """Photon, K0, neutron, Lambda and Xi0 [GeV]."""

    WIDTH = 0.03
    """Difference in GeV at which a particle is another one."""

    size = len(MASSES)

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        if not {"mass", "charge"} <= set(detector.features):
            raise ValueError(
                f"species need the conditions mass and charge; {detector.name} has {', '.join(detector.features)}"
            )
        self._mass, self._charge = (detector.features.index(name) for name in ("mass", "charge"))

    def forward(self, conditions: Tensor) -> Tensor:
        """Maps conditions in physical units, (B, F), to (B, 5)."""
        mass, charge = (conditions[:, one : one + 1] for one in (self._mass, self._charge))
        away = (mass - mass.new_tensor(self.MASSES)) / self.WIDTH
        return torch.where(charge == 0, torch.exp(-away.square()), 0.0)


class GrooveFeatures(nn.Module):
    """How deep a neutral particle flies along the groove of a fibre before it meets the absorber.

    Two numbers: the depth at which its straight line leaves the groove over the length of the module, 1 where it never
    does and 0 where it enters no groove; and 1 where it never does, else 0. Both are 0 for charged particles.

    Args:
        detector: with grooves, a face, a pitch and the features of `ImpactFeatures`.

    Raises:
        ValueError: the detector lacks one of them.
    """

    size = 2

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self._face, self._pitch, self._columns = _placed(detector, "grooves")
        assert detector.grooves is not None
        self._grooves, self._shape = detector.grooves, detector.shape

    def forward(self, conditions: Tensor) -> Tensor:
        """Maps conditions in physical units, (B, F), to (B, 2)."""
        needed = _chosen(conditions, self._columns).double()
        place = _impact(needed, self._face.z) - needed.new_tensor((self._face.x, self._face.y))
        slopes = _slopes(needed[:, 4:6], needed[:, 6:7])
        return torch.cat(self.numbers(place, slopes, needed[:, 7:]), 1).to(conditions.dtype)

    def numbers(self, place: Tensor, slopes: Tensor, charge: Tensor) -> tuple[Tensor, Tensor]:
        """Returns both numbers, (B, 1) float64 each, in few operators of an exported graph.

        Args:
            place: where straight lines meet the face, from its centre in cm, (B, 2) float64.
            slopes: of the lines, (B, 2) float64.
            charge: (B, 1) float64.
        """
        pitch, sizes = self._pitch, self._shape
        length, unit = self._grooves.length, torch.eye(5, dtype=place.dtype)
        # over the length of the module, from the middle of a cell
        cells = _linear(place, unit[:2, :2] / pitch, [size % 2 / 2 for size in sizes])
        scale, half = pitch / length, self._grooves.side / length / 2
        within = _linear(cells - torch.floor(cells), unit[:2, :2] * scale, [-scale / 2] * 2)
        # to the wall that the line flies to, then along the module
        way = (half - within * torch.sign(slopes)) / slopes.abs()
        # below 0 outside of the groove, outside of the face, and for charged particles; else far above 1
        limits = [half, half, *(size * pitch / 2 for size in sizes), 0.5]
        others = torch.cat([within, place, charge], 1).abs()
        inside = _linear(others, -_STEEP * unit, [_STEEP * limit for limit in limits])
        depth = torch.cat([way, inside], 1).amin(1, keepdim=True).clamp(0, 1)
        return depth, torch.floor(depth)


class GenericFeatures(nn.Module):
    """Appends to the conditions of any detector what holds of their kind.

    - ln E, where a feature is the particle's energy;
    - sine and cosine of each angle (unit rad or deg), and for `theta` and `phi` the direction across the axis,
      sin(theta) cos(phi) and sin(theta) sin(phi).

    No straight line meets a face here, so the first guess of the place is the middle of the image.

    Args:
        detector: any detector.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        names = detector.features
        self._middle = tuple((size - 1) / 2 for size in detector.shape)
        self._energy = None if detector.energy is None else names.index(detector.energy.name)
        radians = {"rad": 1.0, "deg": math.pi / 180}
        self._angles = {
            feature.name: (column, radians[feature.unit])
            for column, feature in enumerate(detector.conditions)
            if feature.unit in radians
        }
        self._direction = {"theta", "phi"} <= set(self._angles)
        self.size = len(names) + (self._energy is not None) + 2 * len(self._angles) + 2 * int(self._direction)

    def cell(self, conditions: Tensor) -> Tensor:
        """Returns the middle of the image in cells from the first, (B, 2)."""
        return conditions.new_tensor(self._middle).expand(conditions.shape[0], len(self._middle))

    def forward(self, conditions: Tensor) -> Tensor:
        """Maps conditions in physical units, (B, F), to (B, size)."""
        derived = []
        if self._energy is not None:
            derived.append(torch.log(conditions[:, self._energy].clamp(min=_SMALLEST)))
        waves = {}
        for name, (column, scale) in self._angles.items():
            angle = conditions[:, column] * scale
            waves[name] = torch.sin(angle), torch.cos(angle)
            derived.extend(waves[name])
        if self._direction:
            derived.extend(waves["theta"][0] * wave for wave in reversed(waves["phi"]))
        return torch.cat([conditions, *(column[:, None] for column in derived)], 1)


class ParticleFeatures(nn.Module):
    """Describes a particle by what its detector allows.

    Where face, pitch and the features of a ZDC are known these are `ImpactFeatures` and `BendingFeatures`, elsewhere
    `GenericFeatures`.

    Args:
        detector: any detector with two axes.
        transport: adds `TransportFeatures`, and guesses the place by them.
        grooves: adds `GrooveFeatures`, behind these.
        species: adds `SpeciesFeatures`, behind all others.

    Raises:
        ValueError: transport or grooves are wanted, and the detector has none, or species, and it lacks mass or charge.
    """

    def __init__(
        self, detector: Detector, transport: bool = False, grooves: bool = False, species: bool = False
    ) -> None:
        super().__init__()
        known = detector.face is not None and detector.pitch is not None
        self._first = (
            ImpactFeatures(detector)
            if known and set(_NEEDED) <= set(detector.features)
            else GenericFeatures(detector)
        )
        self._bend = BendingFeatures(detector) if isinstance(self._first, ImpactFeatures) else None
        self.transport = TransportFeatures(detector) if transport else None
        self._grooves = GrooveFeatures(detector) if grooves else None
        self._species = SpeciesFeatures(detector) if species else None
        further = (self._bend, self.transport, self._grooves, self._species)
        self.size = self._first.size + sum(part.size for part in further if part)

    def cell(self, conditions: Tensor) -> Tensor:
        """Returns a first guess of where the light is, in cells from the first, (B, 2)."""
        return self._first.cell(conditions) if self.transport is None else self.transport.cell(conditions)

    def straight(self, conditions: Tensor) -> Tensor:
        """Returns the first guess without magnets, in cells from the first, (B, 2)."""
        return self._first.cell(conditions)

    def forward(self, conditions: Tensor) -> Tensor:
        """Maps conditions in physical units, (B, F), to (B, size)."""
        if torch.compiler.is_exporting() and isinstance(self._first, ImpactFeatures):
            parts = [_Written(self._first, self.transport, self._grooves)(conditions)]
        else:
            first = (self._first, self._bend, self.transport, self._grooves)
            parts = [part(conditions) for part in first if part is not None]
        if self._species is not None:
            parts.append(self._species(conditions))
        return torch.cat(parts, 1) if len(parts) > 1 else parts[0]


class _Written:
    """The features of a ZDC as an exported graph holds them: the same numbers in half of the operators.

    All waves are sines of sums of a and b, and their products are sums of waves. Powers and products with the place
    are taken of vectors, sums of them are products with constant matrices. What needs float64 has it, up to one vector;
    functions of it that are smooth are taken in float32.

    Args:
        first: of the impact.
        transport: of the magnets; None where there are none.
        grooves: likewise.
    """

    def __init__(
        self, first: ImpactFeatures, transport: TransportFeatures | None, grooves: GrooveFeatures | None
    ) -> None:
        self.first, self.transport, self.grooves = first, transport, grooves

    def __call__(self, conditions: Tensor) -> Tensor:
        """Maps conditions in physical units, (B, F), to what `ParticleFeatures` gives, (B, size)."""
        first, magnets = self.first, self.transport
        needed = _chosen(conditions, first._columns).double()
        energy, _, vz, across, pz, charge = needed.split([1, 2, 1, 2, 1, 1], 1)
        impact = _impact(needed, first._face.z)
        place = impact - impact.new_tensor((first._face.x, first._face.y))
        phases = nn.functional.linear(place, (_PHASES * (math.pi / first._pitch)).T, _TURNS)
        waves = torch.where(charge == 0, torch.sin(phases) @ _WAVES, 0.0)
        k = charge * 1000 / energy.clamp(min=1)
        bending = k * _linear(impact, [[0.0, 0.0], [0.1, 0.0], [0.0, 0.1]], [1.0, 0.0, 0.0])
        parts = [place, torch.log(energy), waves, bending, k * k, torch.sign(pz) * bending]
        if self.grooves is not None:
            parts.extend(self.grooves.numbers(place, _slopes(across, pz), charge))
        lengths = [EDGE, EDGE, VERTEX]
        if magnets is None:
            exact = torch.cat([*parts, vz], 1).to(conditions.dtype)
            curved = torch.asinh(_chosen(exact, [0, 1, exact.shape[1] - 1]) / exact.new_tensor(lengths))
            written = torch.cat([conditions, exact, curved], 1)
            return _chosen(written, self._order(conditions.shape[1], exact.shape[1], 0))
        bent, positive = magnets.written(needed, impact, place)
        exact = torch.cat([*parts, positive, bent, vz], 1).to(conditions.dtype)
        size = exact.shape[1]
        reached, steps = magnets.edges(exact[:, size - 3 : size - 1])
        straight = _chosen(exact, [0, 1, size - 1, size - 3, size - 2]) / exact.new_tensor(
            [*lengths, EDGE, EDGE]
        )
        curved = torch.asinh(torch.cat([straight, reached], 1))
        written = torch.cat([conditions, exact, curved, torch.sigmoid(steps)], 1)
        return _chosen(written, self._order(conditions.shape[1], size, steps.shape[1]))

    def _order(self, features: int, exact: int, steps: int) -> list[int]:
        """Returns which of the numbers that are written down is each feature."""
        numbers = iter(range(features, features + exact))
        x, y, energy = (next(numbers) for _ in range(3))
        waves = [next(numbers) for _ in range(11)]
        bending = [next(numbers) for _ in range(7)]
        grooves = [next(numbers) for _ in range(0 if self.grooves is None else self.grooves.size)]
        rest = list(numbers)
        curved = features + exact
        impact = [*range(features), x, y, curved, curved + 1, energy, curved + 2, *waves, *bending]
        if not steps:
            return [*impact, *grooves]
        positive, bent = rest[:2], rest[2:4]
        return [
            *impact,
            *bent,
            *range(curved + 3, curved + 8),
            *positive,
            *range(curved + 8, curved + 8 + steps),
            *grooves,
        ]


def _placed(detector: Detector, also: Literal["transport", "grooves"]) -> tuple[Face, float, list[int]]:
    """Returns face, pitch and the columns of `_NEEDED` of a detector that also knows its transport or grooves.

    Raises:
        ValueError: it lacks one of them.
    """
    face, pitch, known = detector.face, detector.pitch, getattr(detector, also) is not None
    if face is None or pitch is None or not known or not set(_NEEDED) <= set(detector.features):
        raise ValueError(
            f"features of {also} need a detector with face, pitch, {also} and the conditions "
            f"{', '.join(_NEEDED)}; {detector.name} has face {face}, pitch {pitch}, "
            f"{'' if known else 'no '}{also} and {', '.join(detector.features)}"
        )
    return face, pitch, [detector.features.index(name) for name in _NEEDED]


def _chosen(conditions: Tensor, columns: list[int]) -> Tensor:
    """Returns some columns of conditions, in one operator of an exported graph."""
    if torch.compiler.is_exporting():
        return conditions.index_select(1, torch.tensor(columns))
    return conditions[:, columns]


def _impact(needed: Tensor, face: float) -> Tensor:
    """Returns where straight lines meet the plane |z| = face, (B, 2) float64, from the features `_NEEDED`."""
    # float64: the place within a fibre is a small part of the path from the vertex
    if torch.compiler.is_exporting():
        _, vertex, vz, across, pz, _ = needed.double().split([1, 2, 1, 2, 1, 1], 1)
        impact: Tensor = vertex + _slopes(across, pz) * (face - torch.sign(pz) * vz)
        return impact
    _, vx, vy, vz, px, py, pz, _ = needed.double().unbind(1)
    ahead = pz.abs().clamp(min=1e-6)
    length = face - torch.sign(pz) * vz
    return torch.stack([vx + px / ahead * length, vy + py / ahead * length], 1)


def _slopes(across: Tensor, along: Tensor) -> Tensor:
    """Returns the slopes of straight lines in x and y along the way of the particle, (B, 2), from the momentum."""
    return across / along.abs().clamp(min=1e-6)


def _arcsinh(x: Tensor) -> Tensor:
    return torch.asinh(x) if x.dtype == torch.float32 else arcsinh(x)
