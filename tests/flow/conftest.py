"""A certificate for localhost, made at run time; that fetching leaves no thread; a slab and its publisher."""

from __future__ import annotations

import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuflow.memory import Slab
from gpuflow.transfer import Publisher

_OPENSSL = [
    "openssl",
    "req",
    "-x509",
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:prime256v1",
    "-nodes",
    "-days",
    "2",
    "-subj",
    "/CN=localhost",
    "-addext",
    "subjectAltName=DNS:localhost",
]


@pytest.fixture(scope="module")
def source() -> Iterator[Slab]:
    with Slab("64MiB") as slab:
        yield slab
        assert slab.statistics().live_leases == 0


@pytest.fixture(scope="module")
def publisher(source: Slab) -> Iterator[Publisher]:
    with Publisher(source) as publisher:
        yield publisher


@pytest.fixture
def no_thread_is_left() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("gpuflow-")] == []


@pytest.fixture(scope="session")
def certificate_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    try:
        subprocess.run(
            [*_OPENSSL, "-keyout", str(key), "-out", str(certificate)],
            check=True,
            capture_output=True,
        )
    except FileNotFoundError:
        pytest.skip("the openssl command makes the certificate, and is not here")
    return certificate, key


@pytest.fixture
def certificate(certificate_files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's context with a certificate for localhost, which the client trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate_files)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate_files[0]))
    return context
