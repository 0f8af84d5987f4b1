"""Fixtures of the object store that tests run against."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from data_pipeline import storage
from tests.data_pipeline.stores import ENVIRONMENT, Fault, Proxy, Store, running_server


@pytest.fixture(scope="session")
def store_server() -> Iterator[tuple[int, Any]]:
    with running_server() as server:
        yield server


@pytest.fixture
def store(store_server, monkeypatch) -> Iterator[Store]:
    """A bucket, and this process and its children pointed at it as users point theirs."""
    for key, value in ENVIRONMENT.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{store_server[0]}")
    storage.client.cache_clear()
    yield Store(*store_server)
    storage.client.cache_clear()


@pytest.fixture
def spoil(store, monkeypatch) -> Iterator[Callable[[Fault], Proxy]]:
    """Puts a proxy before the store; what it has been told to spoil is spoilt from then on."""
    proxies = []

    def start(fault: Fault) -> Proxy:
        proxies.append(Proxy(store.port, fault))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxies[-1].port}")
        storage.client.cache_clear()
        return proxies[-1]

    yield start
    for proxy in proxies:
        proxy.close()
