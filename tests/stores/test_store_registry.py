"""Stores are found by their URLs."""

import asyncio
import os

import pytest

from unbroken.errors import ConfigurationError
from unbroken.stores import registry
from unbroken.stores.base import NewStream
from unbroken.stores.memory import MemoryStore
from unbroken.stores.sqlite import SqliteStore

BAD = [
    "redi://localhost",
    "",
    "answers.db",
    "memory:?limit=many",
    "memory:?size=1",
    "sqlite:",
    "sqlite:///",
    "sqlite://host/path.db",
    "sqlite:///s.db?synchronous=off",
    "sqlite:///s.db?mode=ro",
]


def test_every_store_is_known_and_nothing_else():
    assert {"memory", "sqlite"} <= set(registry.names())
    assert not {"base", "contract", "registry"} & set(registry.names())
    assert not [name for name in registry.names() if name.startswith("_")]


@pytest.mark.parametrize("url", BAD)
def test_a_url_that_can_not_be_read_says_what_to_write(url):
    with pytest.raises(ConfigurationError):
        registry.open(url)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("memory:", MemoryStore),
        ("memory:?limit=1000", MemoryStore),
        ("sqlite:///s.db", SqliteStore),
        ("sqlite:////tmp/s.db?synchronous=normal", SqliteStore),
    ],
)
def test_a_url_opens_its_store(url, kind):
    assert isinstance(registry.open(url), kind)


@pytest.mark.parametrize("name", ["s.db", "with space & more?.db"])
def test_a_sqlite_url_names_a_file(tmp_path, name):
    url = f"sqlite:///{tmp_path}/" + name.replace(" ", "%20").replace("?", "%3F")

    async def story():
        async with registry.open(url) as store:
            await store.create(NewStream("s"))

    asyncio.run(story())
    assert os.listdir(tmp_path) == [name]
