"""Vector quantisation: codebooks that a network's vectors are rounded to (van den Oord et al. 2017; Yu et al. 2022).

`Codebook` compares directions: vectors and codes are l2-normalised, and a code follows the mean direction of the
vectors that were rounded to it, with a moving average in place of a gradient,

    s_k <- decay s_k + (1 - decay) sum of z/|z| over the vectors of code k,    code k = s_k / |s_k|.

A code whose moving number of vectors has fallen below a threshold is dead, and is put on a vector of the batch.
`ProjectedCodebook` has codes that are trained by gradient, and compares l2-normalised projections of few numbers.

The gradient passes straight through the rounding: z + (code - z), the bracket without gradient.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


def straight_through(z: Tensor, code: Tensor) -> Tensor:
    """Returns the code, with the gradient of z."""
    return z + (code - z).detach()


def usage(indices: Tensor, codes: int) -> tuple[float, float]:
    """Returns the share of the codes in use and the perplexity exp(- sum_k p_k ln p_k) of how often each is."""
    p = torch.bincount(indices.flatten(), minlength=codes).double() / max(indices.numel(), 1)
    lit = p[p > 0]
    return float(len(lit) / codes), float(torch.exp(-(lit * lit.log()).sum()))


class Codebook(nn.Module):
    """Codes of unit length that follow the vectors.

    Args:
        codes: their number, K.
        size: numbers of each, D.
        decay: of the moving averages.
        dead: vectors a batch, on the moving average, below which a code is dead.
    """

    def __init__(self, codes: int, size: int, decay: float, dead: float) -> None:
        super().__init__()
        self.codes, self.decay, self.dead = codes, decay, dead
        self.sums: Tensor
        self.counts: Tensor
        self.register_buffer("sums", F.normalize(torch.randn(codes, size), dim=1))
        self.register_buffer("counts", torch.ones(codes))

    def vectors(self) -> Tensor:
        """Returns the codes, (K, D), of unit length."""
        return F.normalize(self.sums, dim=1, eps=1e-5)

    def forward(self, z: Tensor) -> Tensor:
        """Returns the number of the code nearest in direction to each vector, (*,), of vectors (*, D)."""
        return (F.normalize(z, dim=-1) @ self.vectors().T).argmax(-1)

    def lookup(self, indices: Tensor) -> Tensor:
        """Returns codes by number, (*, D)."""
        return F.embedding(indices, self.vectors())

    @torch.no_grad()
    def follow(self, z: Tensor, indices: Tensor, chosen: Tensor) -> None:
        """Moves the codes towards the vectors that were rounded to them, and revives dead ones.

        Args:
            z: vectors, (N, D).
            indices: their codes, (N,).
            chosen: a uniform in [0, 1) a code, (K,), that says which vector it takes if it is dead.
        """
        z = F.normalize(z, dim=1)
        sums = torch.zeros_like(self.sums).index_add_(0, indices, z)
        counts = torch.bincount(indices, minlength=self.codes).to(self.counts)
        self.sums.lerp_(sums, 1 - self.decay)
        self.counts.lerp_(counts, 1 - self.decay)
        dead = self.counts < self.dead
        taken = z[(chosen * len(z)).long()]
        self.sums.copy_(torch.where(dead[:, None], self.dead * taken, self.sums))
        self.counts.copy_(torch.where(dead, self.dead, self.counts))


class ProjectedCodebook(nn.Module):
    """Codes that are compared by a projection and trained by gradient.

    Args:
        codes: their number, K.
        size: numbers of each, D.
        projection: numbers of the projection.
    """

    def __init__(self, codes: int, size: int, projection: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(codes, size) / size**0.5)
        self.project = nn.Linear(size, projection, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        """Returns the number of the nearest code of each vector, (*,), of vectors (*, D)."""
        first, second = (F.normalize(self.project(vectors), dim=-1) for vectors in (z, self.vectors))
        return (first @ second.T).argmax(-1)

    def lookup(self, indices: Tensor) -> Tensor:
        """Returns codes by number, (*, D)."""
        return F.embedding(indices, self.vectors)

    def agreement(self, z: Tensor, indices: Tensor) -> Tensor:
        """Returns the squared distance of the projections of vectors and their codes, (*,): trains the projection."""
        first, second = (
            F.normalize(self.project(vectors), dim=-1)
            for vectors in (z.detach(), self.lookup(indices).detach())
        )
        return (first - second).square().sum(-1)
