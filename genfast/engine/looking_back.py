"""Attention of the engine in plain PyTorch: an instruction over all positions that are kept, the later ones masked."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genfast.engine.program import Instruction, Program, Read


class LookingBack:
    """What an instruction "attention" reads in the present row.

    Attributes:
        rows: float32 [1 or 2, 1 or heads, columns, positions], what is added to the scores of the present row, minus
            infinity where nothing is read, and what multiplies its weights.
        slots: of keys and of values, int64 [rows], where the rows of the grid are kept.
    """

    def __init__(self, program: Program, instruction: Instruction, maps: list[Tensor], n: int) -> None:
        assert instruction.attention is not None
        self.it, self.a, self.n = instruction, instruction.attention, n
        self.stride = program.buffers[instruction.buffer].stride
        self.device = maps[0].device
        self._kept = [self._positions(program, maps, read) for read in instruction.reads[1:]]
        self._first = [program.buffers[read.buffer].rows - 1 + read.row for read in instruction.reads[1:]]
        if instruction.table is None:
            self.table = torch.zeros((1, 1, self.a.positions, self.a.positions), dtype=torch.float32, device="cpu")
        else:
            self.table = torch.from_numpy(instruction.table)
        shape = (len(self.table), self.table.shape[1], self.a.columns, self.a.positions)
        self.rows = torch.zeros(shape, dtype=torch.float32, device=self.device)
        if len(self.table) > 1:
            self.rows[1].fill_(1)
        self.slots = [torch.zeros(self.a.rows, dtype=torch.int64, device=self.device) for _ in self._kept]

    def _positions(self, program: Program, maps: list[Tensor], read: Read) -> Tensor:
        """A view [n, kept rows, columns, values] of the keys or values of the grid."""
        buffer, kept = program.buffers[read.buffer], maps[read.buffer]
        first = (buffer.left + self.a.column + read.column) * buffer.features + read.feature
        size = (self.n, buffer.rows, self.a.columns, read.count)
        stride = (kept.stride(1), kept.stride(0), buffer.features, 1)
        return kept.as_strided(size, stride, kept.storage_offset() + first)

    def row(self, i: int) -> None:
        """Make the tables those of row `i` of the images."""
        a, r = self.a, i // self.stride - self.a.row
        if not 0 <= r < a.rows:
            return
        positions = torch.arange(a.positions, dtype=torch.int64, device="cpu")
        here = positions[r * a.columns : (r + 1) * a.columns]
        for slots, first in zip(self.slots, self._first):
            rows = torch.arange(a.rows, dtype=torch.int64, device="cpu")
            slots.copy_((rows - r).clamp(-first, 0) + first)
        read = positions <= here[:, None] - a.behind
        table = self.table[:, :, here].clone()
        table[0].masked_fill_(~read, -torch.inf)
        self.rows.copy_(table)

    def call(self, columns: range, query: Tensor, out: Tensor) -> Any:
        """What computes the positions of these pixel columns: query and out are [n, columns, count]."""
        a = self.a
        c = torch.tensor([j // self.stride - a.column for j in columns], dtype=torch.int64, device=self.device)

        def attend() -> None:
            keys, values = (self._of_groups(kept[:, slots]) for kept, slots in zip(self._kept, self.slots))
            q = query.unflatten(-1, (a.groups, -1, a.depth)).permute(0, 2, 3, 1, 4)
            scores = (q @ keys.unsqueeze(2).transpose(-1, -2)).flatten(1, 2)
            bias = self.rows[0][:, c]
            weights = (scores + bias).softmax(-1)
            if not a.nan:
                weights = torch.where((bias == -torch.inf).all(-1, keepdim=True), 0.0, weights)
            if len(self.rows) > 1:
                weights = weights * self.rows[1][:, c]
            y = weights.unflatten(1, (a.groups, -1)) @ values.unsqueeze(2)
            out.copy_(y.flatten(1, 2).transpose(1, 2).flatten(2))

        return attend

    def _of_groups(self, kept: Tensor) -> Tensor:
        """[n, rows, columns, values] as [n, groups, positions, values of a group]."""
        return kept.flatten(1, 2).unflatten(-1, (self.a.groups, -1)).transpose(1, 2)
