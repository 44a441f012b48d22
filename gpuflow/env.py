"""The environment report: what is there, what is not, why, and the line that mends it.

Standard library only, every probe guarded: it works when the package is half broken, and as a file on its own.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

_PIP = "pip install 'gpuflow[cu13]'"
_PACKAGES = {  # distribution -> (module, what it is for, what installs it)
    "numpy": ("numpy", "arrays", "pip install numpy"),
    "torch": ("torch", "tensors", "pip install torch"),
    "torchvision": ("torchvision", "PNG and WebP on the CPU; resize", "pip install torchvision"),
    "simplejpeg": ("simplejpeg", "JPEG on the CPU", "pip install simplejpeg"),
    "pillow": ("PIL", "GIF and the rest of the images", "pip install pillow"),
    "pillow-heif": ("pillow_heif", "HEIC", "pip install 'gpuflow[heif]'"),
    "av": ("av", "containers, video and audio on the CPU", "pip install av"),
    "soundfile": ("soundfile", "WAV, FLAC, MP3 and Ogg", "pip install soundfile"),
    "soxr": ("soxr", "resampling", "pip install soxr"),
    "httpx": ("httpx", "fetching", "pip install httpx"),
    "httpcore": ("httpcore", "fetching", "pip install httpcore"),
    "idna": ("idna", "host names", "pip install idna"),
    "msgspec": ("msgspec", "options and descriptors", "pip install msgspec"),
    "blake3": ("blake3", "content hashes", "pip install blake3"),
    "pybase64": ("pybase64", "data URIs", "pip install pybase64"),
    "safetensors": ("safetensors", "tensors as files", "pip install safetensors"),
    "nixl-cu13": ("nixl_cu13", "transfer to other processes", _PIP),
    "nvidia-dali-cuda130": ("nvidia.dali", "the DALI engines for images and clips", _PIP),
    "cupy-cuda13x": ("cupy", "kernels and memory on the GPU", _PIP),
    "nvidia-nvimgcodec-cu13": ("nvidia.nvimgcodec", "JPEG on the GPU", _PIP),
    "PyNvVideoCodec": ("PyNvVideoCodec", "video on the GPU (NVDEC)", _PIP),
    "transformers": ("transformers", "reference processors of the tests", "pip install 'gpuflow[models]'"),
    "matplotlib": ("matplotlib", "pictures of the demo and the benchmarks", "pip install 'gpuflow[picture]'"),
}
_BACKENDS = {  # group -> module with `capabilities()`
    "images": "gpuflow.codecs.images",
    "videos": "gpuflow.codecs.videos",
    "audio": "gpuflow.codecs.audio",
    "transforms": "gpuflow.ops.transform",
    "transfer": "gpuflow.transfer.nixl",
}
_DRIVER = "install the NVIDIA driver, or start the container with NVIDIA_DRIVER_CAPABILITIES=compute,utility,video"
_NEEDS_DRIVER = {"cupy", "PyNvVideoCodec"}


def report() -> dict[str, Any]:
    """Everything as plain values: ``system``, ``driver``, ``device``, ``packages``, ``backends``."""
    return {
        "gpuflow": _guarded(lambda: importlib.import_module("gpuflow").__version__),
        "system": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "machine": platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        },
        "driver": {name: _library(name) for name in ("libcuda.so.1", "libnvcuvid.so.1", "libnvidia-encode.so.1")},
        "device": _guarded(_device),
        "packages": {name: _package(name, *facts) for name, facts in _PACKAGES.items()},
        "backends": {group: _guarded(partial(_backends, place)) for group, place in _BACKENDS.items()},
    }


def main(*, as_json: bool = False) -> int:
    """Print the report; 0 also where things are missing, for missing things are what it is about."""
    facts = report()
    print(json.dumps(facts, indent=2) if as_json else text(facts))
    return 0


def text(facts: dict[str, Any]) -> str:
    """The report for people."""
    system = facts["system"]
    lines = [
        f"gpuflow {facts['gpuflow']}, Python {system['python']}, {system['platform']}",
        f"{system['cores']} cores, {system['memory_bytes'] / 2**30:.0f} GiB",
        f"device=auto is {facts['device']}",
        "",
        "driver",
        *(f"  {name:22} {'found' if found else 'not found'}" for name, found in facts["driver"].items()),
        *([] if all(facts["driver"].values()) else [f"  to mend: {_DRIVER}"]),
        "",
        "packages",
        *(_package_line(name, package) for name, package in facts["packages"].items()),
        "",
        "backends",
    ]
    for group, backends in facts["backends"].items():
        if not isinstance(backends, dict):
            lines.append(f"  {group:22} {backends}")
            continue
        lines += [
            f"  {group:10} {name:14} {'ready' if ready['available'] else 'no: ' + ready['reason']}"
            for name, ready in backends.items()
        ]
    return "\n".join(lines)


def _package_line(name: str, package: dict[str, Any]) -> str:
    state = package["version"] or "-"
    problem = f"  ! {package['problem']}: {package['remedy']}" if package["problem"] else ""
    return f"  {name:22} {state:12} {package['purpose']}{problem}"


def _package(name: str, module: str, purpose: str, remedy: str) -> dict[str, Any]:
    facts: dict[str, Any] = {"version": None, "purpose": purpose, "problem": None, "remedy": None}
    try:
        facts["version"] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return facts | {"problem": "not installed", "remedy": remedy}
    if module in _NEEDS_DRIVER and not _library("libcuda.so.1"):
        return facts | {"problem": "needs a driver to load", "remedy": _DRIVER}
    try:
        found = importlib.util.find_spec(module)
    except Exception as error:
        return facts | {"problem": f"{type(error).__name__}: {error}", "remedy": remedy}
    return facts if found else facts | {"problem": f"installed, but module {module} is missing", "remedy": remedy}


def _library(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _device() -> str:
    chosen = importlib.import_module("gpuflow.device").choose("auto")
    return f"{chosen.name} ({chosen.reason})"


def _backends(place: str) -> dict[str, Any]:
    found = importlib.import_module(place).capabilities()
    return {
        name: {"available": ready.available, "reason": ready.reason, "version": ready.version}
        for name, ready in found.items()
    }


def _guarded(probe: Callable[[], Any]) -> Any:
    try:
        return probe()
    except Exception as error:
        return f"cannot tell: {type(error).__name__}: {error}"


if __name__ == "__main__":
    sys.exit(main(as_json="--json" in sys.argv[1:]))
