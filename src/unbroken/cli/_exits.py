"""Exit codes: what went wrong, for scripts. One table says them, in the help and in the process."""

from unbroken.errors import (
    AuthenticationFailed,
    ConfigurationError,
    LocalProtocolError,
    PermissionDenied,
    ProtocolError,
    ProviderError,
    RateLimited,
    StreamInterrupted,
    TransportError,
)

OK, OTHER, USAGE, INTERRUPTED = 0, 1, 2, 130

# The first row that fits decides, so the narrower classes come first.
_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (ConfigurationError, USAGE),
    (LocalProtocolError, USAGE),
    (AuthenticationFailed, 3),
    (PermissionDenied, 3),
    (RateLimited, 4),
    (ProviderError, 5),
    (ProtocolError, 5),
    (TransportError, 6),
    (StreamInterrupted, 7),
    (KeyboardInterrupt, INTERRUPTED),
    # `| head -1` got what it wanted. 141 would fail every such pipe under `set -o pipefail`.
    (BrokenPipeError, OK),
)

TABLE = """exit codes:
    0  done, or the reader of a pipe had enough
    1  something unexpected
    2  usage, configuration, or a request that can't be sent
    3  no key, a wrong key, or no permission
    4  rate limit or quota
    5  the provider refused or failed
    6  no connection, or a timeout
    7  the answer broke off; what came is on standard output
  130  Ctrl-C
"""


def exit_code(error: BaseException) -> int:
    """The code for an error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), OTHER)
