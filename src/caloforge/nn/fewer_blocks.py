"""Where a student with fewer blocks than its teacher starts."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn

BLOCK = re.compile(r"(.*blocks)\.(\d+)\.(.*)")
"""Names of the weights of a block: where it is, its number, and the rest."""


def start_from(student: nn.Module, teacher: nn.Module) -> None:
    """Gives a network with as many blocks as another or fewer its weights, of its blocks those evenly spaced.

    Args:
        student: a network with `blocks` somewhere within; weights that the teacher lacks are left as they are.
        teacher: the same in all else.
    """
    weights, own = teacher.state_dict(), student.state_dict()
    most, some = (_blocks(names) for names in (weights, own))
    taken = dict(own)
    for name in own:
        found = BLOCK.fullmatch(name)
        origin = name
        if found:
            origin = f"{found[1]}.{int((int(found[2]) + 0.5) * most / some)}.{found[3]}"
        taken[name] = weights.get(origin, own[name])
    student.load_state_dict(taken)


def _blocks(names: Iterable[str]) -> int:
    """Returns how many blocks weights with these names belong to."""
    return len({found[2] for name in names if (found := BLOCK.fullmatch(name))})
