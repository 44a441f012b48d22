"""The second process: ``python -m gpuflow.demo.reader`` reads descriptors and answers what it got.

Every line on standard input is a descriptor in base64; every answer is a line of JSON with the BLAKE3 of each tensor's
bytes, or the code of the error.
"""

from __future__ import annotations

import base64
import json
import sys
from typing import Any

from gpuflow.demo.digest import digests
from gpuflow.errors import GpuflowError
from gpuflow.transfer import Descriptor, Reader


def main() -> int:
    """Answer until standard input ends."""
    with Reader() as reader:
        print(json.dumps({"ready": reader.slab.device}), flush=True)
        for line in sys.stdin:
            print(json.dumps(_answer(reader, line)), flush=True)
    return 0


def _answer(reader: Reader, line: str) -> dict[str, Any]:
    try:
        with reader.read(Descriptor.from_bytes(base64.b64decode(line)), timeout_seconds=30.0) as media:
            stage = media.stages[0]
            return {"digests": digests(media), "started_seconds": stage.started_seconds, "seconds": stage.seconds}
    except GpuflowError as error:
        return {"error": error.code, "message": str(error)}


if __name__ == "__main__":
    sys.exit(main())
