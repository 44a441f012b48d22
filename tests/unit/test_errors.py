"""The error tree: stable codes, honest statuses, and nothing of the server in what a client sees."""

from __future__ import annotations

import builtins
import re

import pytest

from gpuflow import errors
from gpuflow.errors import GpuflowError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, GpuflowError)]
CLIENTS_FAULT = {
    "InvalidSource", "SourceNotFound", "SourceUnreadable", "InvalidOptions", "SectionAfterEnd", "UnsafeURL", "TooLarge",
    "UnsupportedFormat", "FetchFailed", "CorruptMedia", "NoSuchStream", "LimitExceeded", "DeadlineExceeded",
    "DecoderCrashed", "InvalidDescriptor",
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.__name__))
def test_every_error_is_drawn_in_the_tree_with_its_code_and_status(kind: type[GpuflowError]) -> None:
    assert errors.__doc__ is not None
    if kind is GpuflowError:
        return
    line = next(line for line in errors.__doc__.splitlines() if re.search(rf"[-] {kind.__name__}\b", line))
    assert kind.code in line.split()
    assert str(kind.http_status) in line.split()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.__name__))
def test_what_a_client_sends_is_never_a_5xx(kind: type[GpuflowError]) -> None:
    assert (kind.__name__ in CLIENTS_FAULT) <= (400 <= kind.http_status < 500)


def test_builtins_named_in_the_tree_are_bases() -> None:
    assert errors.__doc__ is not None
    found = re.findall(r"- (\w+) .*also (\w+)", errors.__doc__)
    assert len(found) > 12
    for name, builtin in found:
        assert issubclass(getattr(errors, name), getattr(builtins, builtin))


def test_the_public_form_does_not_hold_the_message() -> None:
    error = errors.SourceNotFound("no file /srv/secret/cat.jpg")
    assert error.to_dict() == {
        "code": "invalid_media_reference",
        "message": "The media reference is not valid.",
        "retryable": False,
    }


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.__name__))
def test_only_what_may_be_asked_again_says_when(kind: type[GpuflowError]) -> None:
    assert kind.retry_after_seconds is None or (kind.retryable and 1 <= kind.retry_after_seconds <= 60)
    assert kind.retry_after_seconds is not None or kind.http_status not in (429, 503)
