"""The error tree. Every error a caller can meet is one of these; vendor exceptions are their ``__cause__``.

    GpuflowError                      code, http_status, public_message, retryable
    |- InvalidSource                  invalid_media_reference   400   also ValueError
    |  |- SourceNotFound              invalid_media_reference   400   also FileNotFoundError
    |  `- SourceUnreadable            invalid_media_reference   400   also PermissionError
    |- InvalidOptions                 invalid_options           400   also ValueError
    |  `- SectionAfterEnd             invalid_options           400
    |- UnsafeURL                      url_not_allowed           400   also PermissionError
    |- TooLarge                       media_too_large           413   also ValueError
    |- UnsupportedFormat              unsupported_media         415   also ValueError
    |- FetchFailed                    media_fetch_failed        422   also ConnectionError
    |- CorruptMedia                   media_unprocessable       422   also ValueError
    |- NoSuchStream                   media_stream_missing      422   also LookupError
    |- LimitExceeded                  media_limit_exceeded      422   also ValueError
    |- DeadlineExceeded               media_too_slow            422   also TimeoutError
    |- DecoderCrashed                 media_unprocessable       422
    |- Overloaded                     overloaded                429
    |  `- SlabExhausted               slab_exhausted            429
    |- BackendUnavailable             decoder_unavailable       503
    |  `- DeviceLost                  device_lost               503
    |- LeaseExpired                   lease_expired             500
    |- Closed                         closed                    503
    |  `- SlabClosed                  slab_closed               503
    |- InvalidDescriptor              invalid_descriptor        400   also ValueError
    |- StaleDescriptor                stale_descriptor          410
    |- PeerUnavailable                peer_unavailable          503   also ConnectionError
    |- TransferTimeout                transfer_timeout          504   also TimeoutError
    `- SpillError                     spill_failed              500   also OSError

``str(error)`` is for the operator's log and may name what was received; ``public_message`` is for the client of a
server and holds no address, path, URL or text of a library. What a client sends is never a 5xx.
Source of codes and statuses: DESIGN section 7.
"""

from __future__ import annotations

from typing import ClassVar


class GpuflowError(Exception):
    """Base of the tree."""

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    public_message: ClassVar[str] = "The media could not be processed."
    retryable: ClassVar[bool] = False
    retry_after_seconds: ClassVar[float | None] = None  # for ``Retry-After``

    def to_dict(self) -> dict[str, object]:
        """What a server may answer: ``code``, ``message``, ``retryable``; never ``str(self)``."""
        return {"code": self.code, "message": self.public_message, "retryable": self.retryable}


class InvalidSource(GpuflowError, ValueError):
    """The reference itself is wrong: its syntax, its base64, its kind."""

    code = "invalid_media_reference"
    http_status = 400
    public_message = "The media reference is not valid."


class SourceNotFound(InvalidSource, FileNotFoundError):
    """No such file."""


class SourceUnreadable(InvalidSource, PermissionError):
    """A directory, a device, or a file that this process may not read."""


class InvalidOptions(GpuflowError, ValueError):
    """An option is unknown, of the wrong type, out of range, or contradicts another."""

    code = "invalid_options"
    http_status = 400
    public_message = "The media options are not valid."


class SectionAfterEnd(InvalidOptions):
    """A section of sound begins after its end."""


class UnsafeURL(GpuflowError, PermissionError):
    """Scheme, port, domain, address or redirect is not allowed: one code and one public text for all of them."""

    code = "url_not_allowed"
    http_status = 400
    public_message = "This URL is not allowed."


class TooLarge(GpuflowError, ValueError):
    """More bytes, or more parts, than allowed."""

    code = "media_too_large"
    http_status = 413
    public_message = "The media is larger than allowed."


class UnsupportedFormat(GpuflowError, ValueError):
    """The bytes are of no format on the list."""

    code = "unsupported_media"
    http_status = 415
    public_message = "This media format is not supported."


class FetchFailed(GpuflowError, ConnectionError):
    """DNS, connect, TLS, status, time or rate: one code and one public text, so that it is no port scanner."""

    code = "media_fetch_failed"
    http_status = 422
    public_message = "The media could not be fetched."
    retryable = True


class CorruptMedia(GpuflowError, ValueError):
    """The bytes are of a known format, and cannot be decoded."""

    code = "media_unprocessable"
    http_status = 422
    public_message = "The media could not be decoded."


class NoSuchStream(GpuflowError, LookupError):
    """The container holds no stream of the kind that was asked for, or an empty one."""

    code = "media_stream_missing"
    http_status = 422
    public_message = "The media has no stream of the requested kind."

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class LimitExceeded(GpuflowError, ValueError):
    """The media claims or holds more pixels, frames, seconds or structure than ``Limits`` allows."""

    code = "media_limit_exceeded"
    http_status = 422
    public_message = "The media exceeds a limit."


class DeadlineExceeded(GpuflowError, TimeoutError):
    """A stage or the whole load did not end in its time."""

    code = "media_too_slow"
    http_status = 422
    public_message = "The media took too long."


class DecoderCrashed(GpuflowError):
    """A worker process died on this input; of what or when is for the log alone. One that is ended because its time is
    over raises ``DeadlineExceeded``."""

    code = "media_unprocessable"
    http_status = 422
    public_message = "The media could not be decoded."


class Overloaded(GpuflowError):
    """More work is waiting than the flow admits; try again later."""

    code = "overloaded"
    http_status = 429
    public_message = "The server is busy."
    retryable = True
    retry_after_seconds = 1.0


class SlabExhausted(Overloaded):
    """No block of that size became free in time."""

    code = "slab_exhausted"


class BackendUnavailable(GpuflowError):
    """A library, a driver or a device that was asked for is not there; the message says what mends it."""

    code = "decoder_unavailable"
    http_status = 503
    public_message = "The service cannot decode this media now."
    retryable = True
    retry_after_seconds = 30.0


class DeviceLost(BackendUnavailable):
    """The GPU's context ended by a fault: no work is done on it until this process is restarted."""

    code = "device_lost"


class LeaseExpired(GpuflowError):
    """The block was released; its memory belongs to somebody else."""

    code = "lease_expired"


class Closed(GpuflowError):
    """The flow, publisher or reader was closed."""

    code = "closed"
    http_status = 503
    public_message = "The service is shutting down."
    retryable = True
    retry_after_seconds = 5.0


class SlabClosed(Closed):
    """The slab was closed."""

    code = "slab_closed"


class InvalidDescriptor(GpuflowError, ValueError):
    """Not a descriptor of this version, or one whose fields contradict each other."""

    code = "invalid_descriptor"
    http_status = 400
    public_message = "The descriptor is not valid."


class StaleDescriptor(GpuflowError):
    """The block was recycled before or while it was read; what was read was thrown away."""

    code = "stale_descriptor"
    http_status = 410
    public_message = "The media is no longer available."
    retryable = True


class PeerUnavailable(GpuflowError, ConnectionError):
    """The publishing process cannot be reached."""

    code = "peer_unavailable"
    http_status = 503
    public_message = "The media is not available now."
    retryable = True
    retry_after_seconds = 1.0


class TransferTimeout(GpuflowError, TimeoutError):
    """The read did not end in its time."""

    code = "transfer_timeout"
    http_status = 504
    public_message = "The transfer took too long."
    retryable = True


class SpillError(GpuflowError, OSError):
    """A block could not be written to, or read back from, a lower tier."""

    code = "spill_failed"
