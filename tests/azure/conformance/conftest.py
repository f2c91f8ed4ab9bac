"""The engines that the suite runs against; each test begins with the world of one as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from tests.azure.conformance.life import Life, Native
from tests.azure.conformance.service import Service
from tests.azure.siterecovery.bookmarks import Bookmark
from tests.azure.siterecovery_sim.conftest import GROUP, VAULT, Cloud, cloud, cloud_in

__all__ = ["begin", "cloud"]
Begin = Callable[..., Life]
ENGINES = ("native", "classic", "modernized")


class Kept:
    """Lives with protected machines, to which one returns: a fresh cloud for each test would take most of the time."""

    def __init__(self, stack: ExitStack, directories: pytest.TempPathFactory) -> None:
        self._stack, self._directories = stack, directories
        self._kept: dict[tuple[str, ...], tuple[Service, Bookmark]] = {}

    def begin(self, experience: str, *machines: str, **plan: Any) -> Service:
        key = (experience, *machines)
        if key not in self._kept:
            found = self._stack.enter_context(cloud_in(self._directories.mktemp("cloud")))
            life = site_recovery(found, experience, *machines)
            self._kept[key] = (life, Bookmark(life, self._directories.mktemp("bookmark")))
        life, bookmark = self._kept[key]
        bookmark.go_back()
        life.wish(**plan)
        return life


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    with ExitStack() as stack:
        yield Kept(stack, tmp_path_factory)


@pytest.fixture(params=ENGINES)
def begin(request: pytest.FixtureRequest, kept: Kept) -> Begin:
    """Return what begins a life: names of machines, fields of the plan; they are protected."""
    if request.param == "native":
        return Native
    return lambda *machines, **plan: kept.begin(request.param, *machines, **plan)


def site_recovery(found: Cloud, experience: str, *machines: str, **plan: Any) -> Service:
    """Begin a life with Site Recovery, up to protected machines."""
    vault = found.sr.vault(GROUP, VAULT, classic=experience == "classic")
    appliance = None
    if experience == "classic":
        found.sr.unified_setup(vault, "cs1")
    else:
        appliance = found.sr.appliance(vault, "appliance1")
    life = Service(found, *(machines or ("web-01",)), appliance=appliance, **plan)
    life.until_protected()
    return life
