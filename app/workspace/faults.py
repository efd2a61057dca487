"""What went wrong at a store? One short line, of words of our own: what a client says may hold addresses and keys.

An outage is a ConnectionError: it may pass, and is worth trying again. What does not pass is a StoreError.
"""

import errno
import os
import re

from obstore.exceptions import AlreadyExistsError, PermissionDeniedError, UnauthenticatedError

from app.workspace.address import CREDENTIALS, Address

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w{1,60})</Code>")
_METADATA = re.compile(r"latest/api/token|latest/meta-data|computeMetadata|oauth2/token|msi/token|token request")
_TRANSPORT = {
    r"certificate|UnknownIssuer": "its certificate is not trusted",
    r"ConnectionRefused|Connection refused": "connection refused",
    r"(?i)timed ?out": "no answer in time",
    r"dns error|failed to lookup": "its name is unknown",
    r"ConnectionReset|Connection reset|IncompleteMessage|closed|BrokenPipe": "the connection broke off",
    r"HTTP error|error sending request|response body": "no connection",
}
_PASSING = {408, 409, 425, 429}
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")


class StoreError(OSError):
    """The store refuses: wrong credentials, no such bucket, another region. Trying again does not help."""


def fault_of(error: Exception, address: Address) -> OSError:
    """Return what an error of the client means: FileNotFoundError, FileExistsError, ConnectionError or StoreError."""
    text = str(error)
    said = text.partition("Debug source")[0]
    status = int(match[1]) if (match := _STATUS.search(said)) else None
    code = match[1] if (match := _CODE.search(said)) else ""
    where = f"{address.server}, asked for {address.name},"
    if isinstance(error, AlreadyExistsError):
        return FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), address.name)
    if code in _NO_BUCKET or (status == 404 and not isinstance(error, FileNotFoundError)):
        kind = "container" if address.cloud == "abfss" else "bucket"
        return StoreError(f"{where} has no {kind} {address.bucket!r}; make it first, or name another")
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), address.name)
    if _METADATA.search(said):
        return _no_credentials(address, status)
    if status in (401, 403) or isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return StoreError(
            f"{where} refuses the credentials ({status or ''}{f' {code}' if code else ''}); "
            f"allowed: {CREDENTIALS[address.cloud]}"
        )
    if "Invalid Access Key" in said:
        return StoreError(f"the account key for {address.name} is no Base64; allowed: {CREDENTIALS['abfss']}")
    if "redirect" in said or code in ("PermanentRedirect", "AuthorizationHeaderMalformed"):
        return StoreError(f"{where} says that its bucket is in another region than {address.region}")
    if status is not None:
        answer = f"{where} answers {status}{f' {code}' if code else ''}"
        return ConnectionError(answer) if status >= 500 or status in _PASSING else StoreError(answer)
    for pattern, words in _TRANSPORT.items():
        if re.search(pattern, text):
            return (StoreError if "certificate" in words else ConnectionError)(f"{where} cannot be reached: {words}")
    return StoreError(f"{where} cannot be used: {type(error).__name__}")


def _no_credentials(address: Address, status: int | None) -> OSError:
    words = f"no credentials are found for {address.name}; allowed: {CREDENTIALS[address.cloud]}"
    # A machine's own service may be away for a moment, too.
    return StoreError(words) if status is not None and status < 500 else ConnectionError(words)
