"""Exit codes: what went wrong, for scripts."""

from unbroken.errors import (
    AuthenticationFailed,
    BadRequest,
    ConfigurationError,
    LocalProtocolError,
    PermissionDenied,
    ProtocolError,
    ProviderError,
    RateLimited,
    StreamInterrupted,
    TransportError,
    UnbrokenError,
)

OK, OTHER, USAGE = 0, 1, 2

# The first row that fits decides, so the narrower classes come first.
_CODES: tuple[tuple[type[UnbrokenError], int], ...] = (
    (ConfigurationError, USAGE),
    (LocalProtocolError, USAGE),
    (AuthenticationFailed, 3),
    (PermissionDenied, 3),
    (RateLimited, 4),
    (BadRequest, 5),
    (ProviderError, 5),
    (ProtocolError, 5),
    (TransportError, 6),
    (StreamInterrupted, 7),
)

TABLE = """exit codes:
  0 done   1 unexpected   2 usage or configuration   3 authentication or permission
  4 rate limit   5 provider   6 connection or timeout   7 interrupted in mid-answer   130 Ctrl-C
"""


def exit_code(error: UnbrokenError) -> int:
    """The code for an error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), OTHER)
