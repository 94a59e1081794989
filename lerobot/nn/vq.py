"""Vectors as a few codes: each layer of codebooks rounds what the layers before it left over.

Papers: van den Oord et al. 2017, "Neural Discrete Representation Learning" (VQ-VAE, codebooks that follow
averages: appendix A.1); Zeghidour et al. 2021, "SoundStream" (residual layers). Names of tensors are those of
published VQ-BeT files.

    x -> nearest of K vectors -> code 1;   x - vector -> nearest -> code 2;   ...     sum of the vectors ~ x

Codebooks learn without gradients, by running averages of the vectors that chose each entry. What a forward
pass sees is collected; `advance` moves the codebooks by it, so that several micro-batches, or processes, move
them as one large batch would.

Shapes: N vectors, D width, K entries of a codebook, G layers.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DECAY = 0.8  # share of the old averages that a step keeps
SMOOTHING = 1e-5  # added to the count of each entry


class Quantised(NamedTuple):
    """Vectors that were rounded."""

    vectors: Tensor  # (..., D), whose gradients are those of the vectors that came in
    codes: Tensor  # (..., G) int64
    misses: Tensor  # (..., D) squared distance of each layer's input to its codebook, added over layers


class ResidualVQ(nn.Module):
    """G codebooks of K vectors of width D, one rounding what the others left."""

    freeze_codebook: Tensor  # () bool

    def __init__(self, width: int, *, num_codes: int, num_layers: int = 2) -> None:
        super().__init__()
        # Files call each layer's codebook `_codebook`.
        books = [nn.ModuleDict({"_codebook": Codebook(width, num_codes)}) for _ in range(num_layers)]
        self.layers = nn.ModuleList(books)
        self.register_buffer("freeze_codebook", torch.tensor(False))
        # What was shown since the last `advance`, (G, K, 1 + D). No buffer: DDP would overwrite it.
        self.collected: Tensor | None = None

    @property
    def codebooks(self) -> list["Codebook"]:
        """First layer to last."""
        return [layer["_codebook"] for layer in self.layers]  # type: ignore[index]

    def forward(self, x: Tensor, *, weight: Tensor | None = None) -> Quantised:
        """Vectors (N, D), rounded in float32; in training mode they are collected for `advance`.

        Args:
            weight: (N,) how much each vector counts in the averages.
        """
        rounded, codes, misses, shown = [], [], [], []
        with torch.autocast(x.device.type, enabled=False):
            rest = x.float()  # (N, D)
            for book in self.codebooks:
                code = book.nearest(rest)  # (N,)
                gap = book(code) - rest  # (N, D)
                misses.append(gap.square())
                if self.training:
                    shown.append(book.statistics(rest.detach(), code, weight))
                codes.append(code)
                rounded.append(rest + gap.detach())  # the gradient passes straight through
                rest = rest - rounded[-1].detach()
        if shown:
            fresh = torch.stack(shown)  # (G, K, 1 + D)
            self.collected = fresh if self.collected is None else self.collected + fresh
        return Quantised(sum_of(rounded), torch.stack(codes, dim=-1), sum_of(misses))

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Codes (..., G) of vectors (..., D)."""
        codes = []
        with torch.autocast(x.device.type, enabled=False):
            rest = x.float().flatten(0, -2)  # (N, D)
            for book in self.codebooks:
                codes.append(book.nearest(rest))
                rest = rest - book(codes[-1])
        return torch.stack(codes, dim=-1).unflatten(0, x.shape[:-1])  # (..., G)

    def decode(self, codes: Tensor) -> Tensor:
        """Vectors (..., D) of codes (..., G)."""
        return sum_of([book(code) for book, code in zip(self.codebooks, codes.unbind(-1), strict=True)])

    @torch.no_grad()
    def advance(self, add_up: Callable[[Tensor], Tensor]) -> None:
        """Move the codebooks by what was collected, which is then forgotten.

        Nothing moves by vectors that are no numbers, or by none.

        Args:
            add_up: the sum of a tensor over all processes that train together.
        """
        if self.collected is None:
            return
        shown, self.collected = add_up(self.collected), None
        counts, sums = shown[..., 0], shown[..., 1:]  # (G, K), (G, K, D)
        is_sound = shown.isfinite().all() & (counts.sum() > 0) & ~self.freeze_codebook
        books = self.codebooks
        sizes = torch.cat([book.cluster_size for book in books]).lerp_(counts, 1 - DECAY)  # (G, K)
        averages = torch.cat([book.embed_avg for book in books]).lerp_(sums, 1 - DECAY)  # (G, K, D)
        totals = sizes.sum(1, keepdim=True)  # (G, 1)
        smoothed = (sizes + SMOOTHING) / (totals + SMOOTHING * sizes.shape[1]) * totals  # (G, K)
        vectors = averages / smoothed[..., None]  # (G, K, D)
        for layer, book in enumerate(books):
            held = (book.cluster_size, book.embed_avg, book.embed)
            for old, new in zip(held, (sizes, averages, vectors), strict=True):
                old.copy_(torch.where(is_sound, new[layer], old))


class Codebook(nn.Module):
    """K vectors (1, K, D), each the running average of the vectors that were nearest to it."""

    initted: Tensor  # (1,) whether the vectors were set, which they are from the start
    cluster_size: Tensor  # (1, K) running number of vectors per entry
    embed_avg: Tensor  # (1, K, D) running sum of them
    embed: Tensor  # (1, K, D)

    def __init__(self, width: int, num_codes: int) -> None:
        super().__init__()
        vectors = torch.empty(1, num_codes, width)
        bound = (6 / (num_codes * width)) ** 0.5
        nn.init.uniform_(vectors, -bound, bound)
        self.register_buffer("initted", torch.ones(1))
        self.register_buffer("cluster_size", torch.zeros(1, num_codes))
        self.register_buffer("embed_avg", vectors.clone())
        self.register_buffer("embed", vectors)

    def forward(self, codes: Tensor) -> Tensor:
        """The vectors (..., D) of codes (...)."""
        return F.embedding(codes, self.embed[0])

    @torch.no_grad()
    def nearest(self, x: Tensor) -> Tensor:
        """The code (N,) of the nearest vector to each of (N, D)."""
        vectors = self.embed[0]  # (K, D)
        # |x - e|^2 without |x|^2, which all of them share, over -2
        return torch.addmm(vectors.square().sum(1), x, vectors.t(), beta=-0.5).argmax(-1)

    def statistics(self, x: Tensor, codes: Tensor, weight: Tensor | None) -> Tensor:
        """How many vectors of (N, D) chose each entry, and their sum: (K, 1 + D)."""
        chosen = torch.zeros(len(x), self.embed.shape[1], dtype=x.dtype, device=x.device)  # (N, K)
        chosen.scatter_(1, codes[:, None], 1.0 if weight is None else weight[:, None].to(x.dtype))
        return torch.cat([chosen.sum(0)[:, None], chosen.t() @ x], dim=1)


def sum_of(parts: Sequence[Tensor]) -> Tensor:
    """The sum of one and more tensors, in order."""
    first, *others = parts
    return sum(others, start=first)
