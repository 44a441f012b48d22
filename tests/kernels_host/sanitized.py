"""Run one kernel's check in a process of its own, whose sanitiser ends it: ``NAME MISSING DEFINES=LIBRARY ...``.

``MISSING``: bytes of shared memory that the launches get less than they ask for.
"""

from __future__ import annotations

import sys
from pathlib import Path

from gpuflow.ops.kernels import Launch
from tests.kernels_host.building import HostKernel, Schedule
from tests.kernels_host.checks import check_of


def main(name: str, missing: str, *libraries: str) -> None:
    """Both one thread a block and the launch's own block."""
    built = {}
    for entry in libraries:
        defines, _, library = entry.rpartition("=")
        built[defines] = HostKernel(Path(library))
    for schedule in (Schedule(block=(1, 1)), Schedule(2)):

        def run(launch: Launch, schedule: Schedule = schedule) -> None:
            kernel = built[str(launch.defines)]
            kernel.run(launch, schedule, missing_shared_bytes=int(missing) if launch.shared_bytes else 0)

        check_of(name)(run)


if __name__ == "__main__":
    main(*sys.argv[1:])
