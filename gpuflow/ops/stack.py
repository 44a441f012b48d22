"""Tensors of one name of several results, put together: padded where their sizes differ, then one after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def stacked(tensors: Sequence[Any], *, axis: int = 0, fill: int = 0) -> Any:
    """A new tensor, on the device of the given ones: each padded at its far ends with ``fill`` to the largest size of
    every other axis, then joined along ``axis``. All have one type and the same number of axes."""
    import torch

    sizes = [max(lengths) for lengths in zip(*(tensor.shape for tensor in tensors), strict=True)]
    return torch.cat([_padded(tensor, sizes, axis, fill) for tensor in tensors], dim=axis)


def filled(tensors: Sequence[Any], *, axis: int, levels: Sequence[Any]) -> Any:
    """``stacked`` along the first axis; what is padded of each along ``axis`` has its ``levels``, a numpy array of the
    length of the other axis."""
    import torch

    batch, begin = stacked(tensors), 0
    for tensor, level in zip(tensors, levels, strict=True):
        length = tensor.shape[axis]
        behind = batch[begin : begin + len(tensor)].narrow(axis, length, batch.shape[axis] - length)
        value = torch.from_numpy(level).to(batch)
        behind.copy_(value if axis == 1 else value[:, None])
        begin += len(tensor)
    return batch


def summed(tensors: Sequence[Any]) -> Any:
    """A new tensor, their sum, of their type."""
    import torch

    return torch.stack(list(tensors)).sum(dim=0, dtype=tensors[0].dtype)


def _padded(tensor: Any, sizes: Sequence[int], axis: int, fill: int) -> Any:
    import torch

    missing = [0 if at == axis else size - tensor.shape[at] for at, size in enumerate(sizes)]
    if not any(missing):
        return tensor
    ends = [end for length in reversed(missing) for end in (0, length)]  # the last axis comes first
    return torch.nn.functional.pad(tensor, ends, value=fill)
