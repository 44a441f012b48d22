"""Views of another process's block, for as long as a ``with`` lasts."""

from __future__ import annotations

import warnings
from typing import Any

from gpuflow.errors import LeaseExpired
from gpuflow.media import TensorSpec


class Borrowed:
    """Looks like a lease to a medium, over a read-only vector of bytes that belongs to somebody else."""

    device = "cpu"

    def __init__(self, block: Any) -> None:
        self._block: Any = block

    def array(self, spec: TensorSpec) -> Any:
        """A read-only view of one tensor; bfloat16 as uint16."""
        if self._block is None:
            raise LeaseExpired("the block was looked at only within the 'with'")
        dtype = "uint16" if spec.dtype == "bfloat16" else spec.dtype
        return self._block[spec.offset : spec.offset + spec.nbytes].view(dtype).reshape(spec.shape)

    def tensor(self, spec: TensorSpec) -> Any:
        """A view of one tensor as ``torch.Tensor``; writing to it ends the process, because the memory is read-only."""
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch has no read-only tensors, and says so
            flat = torch.from_numpy(self.array(TensorSpec(spec.name, "uint8", (spec.nbytes,), spec.offset)))
        return flat.view(getattr(torch, spec.dtype)).reshape(spec.shape)

    def release(self) -> None:
        """No view is given out any more."""
        self._block = None
