"""Places of guests in networks of this host: chosen before the network is there, and kept."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from farshore_engine.contract.faults import StopFault
from farshore_engine.machines.network import Network, Tap, link_exists, network_lock
from farshore_engine.machines.places import release, reserve, reserved


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    network = Network(str(tmp_path), "shore")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    yield network
    for name in ("a", "b"):
        Tap(network, name).unplug()
    assert not link_exists(network.bridge)


def test_a_guest_keeps_its_place_and_nobody_else_gets_it(network: Network, tmp_path: Path) -> None:
    first = reserve(network, tmp_path, "a")
    assert reserve(network, tmp_path, "a") == first
    assert reserved(tmp_path / "a", "shore") == first
    assert reserved(tmp_path / "a", "another") == "", "its disks were prepared for one network"
    with pytest.raises(StopFault, match="another machine's"):
        reserve(network, tmp_path, "b", first)
    second = reserve(network, tmp_path, "b")
    assert second != first
    assert not link_exists(network.bridge), "nothing is made before the machine starts"
    for name, address in (("a", first), ("b", second)):
        Tap(network, name).plug(ipaddress.IPv4Interface(address))
    found = network.subnet()
    assert found is not None
    assert {ipaddress.IPv4Interface(one).network for one in (first, second)} == {found.network}
    release(tmp_path / "a")
    release(tmp_path / "a")
    assert reserved(tmp_path / "a", "shore") == ""


def test_a_guest_gets_the_address_that_its_manifest_names_or_none(network: Network, tmp_path: Path) -> None:
    wanted = f"10.233.{secrets.randbelow(200)}.17/24"
    assert reserve(network, tmp_path, "a", wanted) == wanted
    Tap(network, "a").plug(ipaddress.IPv4Interface(wanted))
    host = network.subnet()
    assert host is not None
    assert host.network == ipaddress.IPv4Interface(wanted).network
    with pytest.raises(StopFault, match="cannot be had in the network shore"):
        reserve(network, tmp_path, "b", "10.234.1.4/24")
    with pytest.raises(StopFault, match="cannot be had"):
        reserve(network, tmp_path, "b", str(host))
    with pytest.raises(StopFault, match="no IPv4 address"):
        reserve(network, tmp_path, "b", "fd00::4/64")
    with pytest.raises(StopFault, match="in use on this host"), network_lock():
        Network(str(tmp_path), "second").planned(ipaddress.IPv4Interface(wanted))
