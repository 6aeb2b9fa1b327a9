"""Every error of the project, as one tree.

    StillstreamError
    ├── UsageError         the caller asked for what cannot be: a wrong path, option or configuration
    ├── ItemError          one item (video, photo, link) cannot be used; carries a Reason
    │   ├── RejectedError  readable but unsuitable        → row with status "rejected"
    │   ├── MediaError     the bytes are not usable media → row with status "failed"
    │   └── FetchError     it could not be fetched        → row with status "failed"
    ├── FormatError        a stored dataset, shard or checkpoint is not what it claims to be
    ├── StoreError         the object store did not do what was asked, after the retries
    └── JobError           a cluster did not carry a job to its end

Foreign errors are translated once, at the border where they arise: `raise StoreError(...) from exc`.
An ItemError becomes a row and the run goes on; anything else ends the job.
"""

from __future__ import annotations

from storage.reasons import Reason, Status

__all__ = [
    "FetchError",
    "FormatError",
    "ItemError",
    "JobError",
    "MediaError",
    "RejectedError",
    "StillstreamError",
    "StoreError",
    "UsageError",
]


class StillstreamError(Exception):
    """Base of all errors raised on purpose; its text is fit to show to a user as one line."""


class UsageError(StillstreamError):
    """The caller asked for something that cannot be; the message says what was expected and the cure."""


class ItemError(StillstreamError):
    """One item cannot be used; `reason` is its word from the closed list, `status` the row's status."""

    status: Status = Status.FAILED

    def __init__(self, message: str, *, reason: Reason) -> None:
        super().__init__(message)
        self.reason = Reason(reason)

    def __reduce__(self) -> tuple[object, ...]:
        # The default would call the class without `reason`; errors cross process borders here.
        return (_rebuild, (type(self), str(self), self.reason))


class RejectedError(ItemError):
    """The item is readable but unsuitable."""

    status = Status.REJECTED


class MediaError(ItemError):
    """The item's bytes are not usable media, or their decoder crashed or hung."""


class FetchError(ItemError):
    """The item could not be fetched."""


class FormatError(StillstreamError):
    """A stored dataset, shard, manifest or checkpoint is not what it claims to be."""


class StoreError(StillstreamError):
    """The object store did not do what was asked, after the retries."""


class JobError(StillstreamError):
    """A cluster or its job service did not carry a job to its end; what is finished is kept."""


def _rebuild(kind: type[ItemError], message: str, reason: Reason) -> ItemError:
    return kind(message, reason=reason)
