"""Processes that train together, each on its share of every batch, so that the update is that of one process.

In: `torchrun`'s environment. Out: a `Team`, which sums numbers and gradients over its members.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

from ..errors import RossamError


@dataclass(frozen=True)
class Team:
    """The processes that train together: one, or those `torchrun` started."""

    rank: int
    world: int
    share: range
    """Places of a batch that are this process's."""

    @staticmethod
    def join(batch_size: int) -> Team:
        """Read `torchrun`'s environment; without it, a team of one."""
        world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        if batch_size < world:
            raise RossamError("batch_size", f"{batch_size} for {world} processes", "give each process an image or more")
        if world > 1 and not dist.is_initialized():
            dist.init_process_group("gloo", timeout=timedelta(hours=1))
        return Team(rank, world, range(rank * batch_size // world, (rank + 1) * batch_size // world))

    @property
    def leads(self) -> bool:
        """Whether this process writes the log and the weights."""
        return self.rank == 0

    def wait(self) -> None:
        """Until every process has come here."""
        if self.world > 1:
            dist.barrier()

    def device(self, place: torch.device) -> torch.device:
        """This process's own GPU where there are several; any other device as it is."""
        own = place.type == "cuda" and place.index is None and self.world > 1
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if own else place

    def total(self, value: float) -> float:
        """Sum over the processes."""
        if self.world == 1:
            return value
        summed = torch.tensor([value], dtype=torch.float64)
        dist.all_reduce(summed)
        return float(summed)

    def add_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Replace every gradient by its sum over the processes, in one message."""
        if self.world == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients]).cpu()
        dist.all_reduce(flat)
        for gradient, summed in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))
