"""A process of its own that reads with Dynamo's own readers until its standard input ends.

One line in: ``{"how": "rdma" | "embeddings" | "media", "form": ..., "nbytes": ...}``. One line out: shape, type and
SHA-256 of the bytes that came. The first line out says that the process is ready.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import torch
from dynamo import nixl_connect
from dynamo.common.multimodal.embedding_transfer import NixlReadEmbeddingReceiver, TransferRequest
from dynamo.common.utils.media_nixl import read_decoded_media_via_nixl


async def read_rdma(form: Any, nbytes: int) -> torch.Tensor:
    """``Connector.begin_read`` into a new tensor."""
    target = torch.zeros(nbytes, dtype=torch.uint8)
    metadata = nixl_connect.RdmaMetadata.model_validate(form)
    operation = await nixl_connect.Connector().begin_read(metadata, nixl_connect.Descriptor(target))
    await operation.wait_for_completion()
    return target


async def read_embeddings(form: Any, _: int) -> torch.Tensor:
    """The receiver as Dynamo makes it: no buffers registered beforehand."""
    receiver = NixlReadEmbeddingReceiver(max_items=0)
    tensor: torch.Tensor
    number, tensor = await receiver.receive_embeddings(TransferRequest.model_validate(form))
    receiver.release_tensor(number)
    return tensor


async def read_media(form: Any, _: int) -> torch.Tensor:
    """What a backend does with a decoded medium."""
    return torch.from_numpy(await read_decoded_media_via_nixl(nixl_connect.Connector(), form))


READERS: dict[str, Callable[[Any, int], Awaitable[torch.Tensor]]] = {
    "rdma": read_rdma,
    "embeddings": read_embeddings,
    "media": read_media,
}


def answer(line: str) -> dict[str, Any]:
    """Do what one line asks."""
    request = json.loads(line)
    tensor = asyncio.run(_read(request))
    raw = tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return {
        "shape": list(tensor.shape),
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "sha256": hashlib.sha256(raw).hexdigest(),
    }


async def _read(request: dict[str, Any]) -> torch.Tensor:
    async with asyncio.timeout(60):
        return await READERS[request["how"]](request["form"], request["nbytes"])


if __name__ == "__main__":
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # NIXL's logger writes to standard output
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(line)), file=out, flush=True)
