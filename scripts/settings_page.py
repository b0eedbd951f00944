"""Writes docs/reference/settings.md from the settings: python scripts/settings_page.py."""

from pathlib import Path

import msgspec

from unbroken.server.settings import RELOADABLE, Settings

PAGE = Path(__file__).parent.parent / "docs/reference/settings.md"

HEAD = """# Settings of the gateway

In the `[server]` table of `unbroken.toml`, or as variables (`UNBROKEN_PORT`; lists are separated by
commas). Times are in seconds, sizes in bytes. SIGHUP reloads the settings marked so.

| setting | default | reload | |
|---|---|---|---|
"""

MEANINGS = {
    "host": "address to listen on; others than this machine's need a key first",
    "port": "port to listen on",
    "uds": "unix socket to listen on, instead of host and port",
    "workers": "processes that share the port; needs SQLite or Redis",
    "store": "`sqlite:///FILE`, `redis://HOST`, `memory:`",
    "on_disconnect": "`keep`, `cancel` or `grace`: what happens to an answer without readers",
    "grace": "how long an answer waits for a reader to return",
    "drain": "time for open answers when the server stops",
    "heartbeat": "between two comments on a silent stream, so that proxies keep it open",
    "max_body": "size of a request's body",
    "max_streams": "open answers of one process",
    "max_streams_per_key": "open answers of one key in one process",
    "max_followers_per_key": "readers of one key in one process",
    "max_connections": "connections of one process; more get a 503",
    "max_connections_per_client": "connections of one address, trusted proxies excepted",
    "timeout_head": "for a request's head to arrive; then 408",
    "timeout_body": "for a request's body to arrive; then 408",
    "timeout_write": "that a client may read nothing while a response waits for it",
    "timeout_keep_alive": "that a connection may be idle between two requests",
    "ssl_certfile": "TLS certificate chain, PEM",
    "ssl_keyfile": "TLS private key, PEM; empty: it is in ssl_certfile",
    "ssl_keyfile_password": "password of the private key",
    "proxy_headers": "believe `X-Forwarded-For` and `X-Forwarded-Proto` of trusted proxies",
    "forwarded_allow_ips": "addresses or networks of trusted proxies, separated by commas",
    "keep_days": "days that finished answers are kept, or `forever`",
    "keep_bytes": "size of all finished answers together; the oldest are deleted first",
    "log": "`text`, `json` or `off`",
    "log_content": "log prompts and answers",
    "cors": "origins whose pages may send requests; `*`: any",
    "models": "models and routes that may be requested, the first by default; empty: all",
    "simulator": "`open`: `sim/...` models with parameters for every caller; `auto`: see serve",
}


def page() -> str:
    """Return the page. Raises KeyError for a setting without a meaning."""
    rows = []
    for field in msgspec.structs.fields(Settings):
        default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
        shown = "none" if default in (None, "", []) else f"`{default}`"
        reload = "yes" if field.name in RELOADABLE else ""
        rows.append(f"| `{field.name}` | {shown} | {reload} | {MEANINGS[field.name]} |")
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
