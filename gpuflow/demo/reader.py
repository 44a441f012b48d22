"""The second process: ``python -m gpuflow.demo.reader`` reads descriptors and answers what it got.

Every line on standard input is a descriptor in base64, for as many reads as there are ways from process to process
here; every answer is a line of JSON: for each way the BLAKE3 of each tensor's bytes, or the code of the error.
"""

from __future__ import annotations

import base64
import json
import sys
from contextlib import ExitStack
from typing import Any

from gpuflow.demo.digest import digests
from gpuflow.device import choose
from gpuflow.errors import GpuflowError
from gpuflow.memory import Slab
from gpuflow.transfer import Descriptor, Reader


def main() -> int:
    """Answer until standard input ends."""
    with ExitStack() as stack:
        slab = stack.enter_context(Slab("1GiB", device=choose("auto")))
        ways = sys.argv[1:]
        readers = {way: stack.enter_context(Reader(slab=slab, transports=(way,))) for way in ways}  # type: ignore[arg-type]
        print(json.dumps({"ready": slab.device}), flush=True)
        for line in sys.stdin:
            print(json.dumps([_answer(way, reader, line) for way, reader in readers.items()]), flush=True)
    return 0


def _answer(way: str, reader: Reader, line: str) -> dict[str, Any]:
    try:
        with reader.read(Descriptor.from_bytes(base64.b64decode(line)), timeout_seconds=30.0) as media:
            stage = media.stages[0]
            times = {"started_seconds": stage.started_seconds, "seconds": stage.seconds}
            return {"way": way, "digests": digests(media), **times}
    except GpuflowError as error:
        return {"way": way, "error": error.code, "message": str(error)}


if __name__ == "__main__":
    sys.exit(main())
