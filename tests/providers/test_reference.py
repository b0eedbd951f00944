"""The table in docs/reference/providers.md says what the registry says."""

from pathlib import Path

import unbroken
from unbroken.providers import registry

PAGE = Path(unbroken.__file__).parents[2] / "docs" / "reference" / "providers.md"


def cells(name):
    provider = registry.provider(name)
    variable = provider.base_url_env or provider.host_env
    where = f"`{provider.base_url.replace('|', ' or ')}`" if provider.base_url else ""
    moved = f"`{variable}`" if variable else ""
    key = f"`{provider.auth.env}`" if provider.auth.env else "-"
    models = provider.prefill.models if provider.prefill else ()
    goes_on = "all" if models == ("*",) else ", ".join(f"`{model}`" for model in models)
    default = registry.default_model(name)
    return (
        f"`{name}`",
        key if provider.auth.required or key == "-" else f"{key} (optional)",
        "in this process" if provider.in_process else "; ".join(filter(None, (where, moved))),
        goes_on or "no",
        f"`{default}`" if default else "-",
    )


def table():
    rows = [
        ("name", "key", "address; variable that moves it", "continues mid-answer", "default"),
        ("---",) * 5,
        *(cells(name) for name in registry.names()),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def test_the_page_has_every_provider_as_it_is():
    assert table() in PAGE.read_text("utf-8"), f"the table should be:\n{table()}"
