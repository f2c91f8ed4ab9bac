"""The checklist is pure: facts of a machine in, what is wrong and what to do about it out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from farshore_engine.contract.assignment import Source
from farshore_engine.contract.replication import Check, CheckResult
from farshore_engine.processserver.push import checklist
from farshore_engine.processserver.push.checklist import Needs
from farshore_engine.processserver.push.facts import Facts, Space, parse_facts

MIB = 1 << 20
NEEDS = Needs("0.1.0-0123abcd", 30 * MIB, 90 * MIB, (3, 2, 0), ("sse4_2", "ssse3"))
GOOD = """\
clock\t1700000000
system\tLinux
architecture\tx86_64
kernel\t6.1.0-18-cloud-amd64
hostname\tdb1
uid\t0
os\tDebian GNU/Linux 12 (bookworm)
cpu_flags\t fpu sse2 ssse3 sse4_1 sse4_2 popcnt
memory_kib\t1048576
memory_free_kib\t524288
tracefs\tevents
opt\t1048576 /
var\t1048576 /
etc\t1048576 /
disk\tsda 20971520 0 yes
disk\tsdb 2097152 0 yes
disk\tsr0 0 1 no
disk\tloop0 8192 1 yes
disk\tdm-0 8192 0 yes
mount\t/dev/sda1 ext4 /
mount\t/dev/sda15 vfat /boot/efi
resolved\t10.0.0.4
address\t127.0.0.1
address\t10.0.0.4
address\tfe80::1
tool\ttar
tool\tgzip
service\tsystemd
"""
FACTS = parse_facts(GOOD)
SPACE = Space(1 << 30, "/", False)


def with_lines(*lines: str) -> Facts:
    """The good machine, with some of its lines replaced by others of the same name."""
    names = {line.split("\t")[0] for line in lines}
    kept = [line for line in GOOD.splitlines() if line.split("\t")[0] not in names]
    return parse_facts("\n".join([*kept, *lines]))


def results(facts: Facts, source: Source = Source(address="10.0.0.4")) -> list[Check]:  # noqa: B008
    return [
        checklist.operating_system(facts),
        checklist.kernel_features(facts, NEEDS),
        checklist.tools(facts),
        checklist.free_space(facts, NEEDS),
        checklist.memory(facts),
        checklist.disks(facts, source),
        checklist.host_name(facts),
        checklist.clock(facts, 1700000000.2, 1700000000.8),
        checklist.service_manager(facts),
        checklist.earlier_install(facts, NEEDS),
    ]


def test_a_good_machine_passes() -> None:
    assert {c.name: c.result for c in results(FACTS)} == {c.name: CheckResult.PASSED for c in results(FACTS)}
    assert "sda (10.0 GiB), sdb (1024 MiB)" in results(FACTS)[5].message


WRONG: dict[str, tuple[Facts, str, CheckResult, str]] = {
    "FreeBSD": (with_lines("system\tFreeBSD"), "OperatingSystem", CheckResult.ERROR, "runs FreeBSD"),
    "an ARM processor": (with_lines("architecture\taarch64"), "OperatingSystem", CheckResult.ERROR, "aarch64"),
    "CentOS 6": (with_lines("kernel\t2.6.32-754.el6.x86_64"), "KernelFeatures", CheckResult.ERROR, "3.2.0 or newer"),
    "an old processor model": (with_lines("cpu_flags\tfpu sse2"), "KernelFeatures", CheckResult.ERROR, "sse4_2, ssse3"),
    "no tracefs": (with_lines("tracefs\t"), "KernelFeatures", CheckResult.WARNING, "comparing hashes"),
    "tracefs that can be mounted": (with_lines("tracefs\tknown"), "KernelFeatures", CheckResult.PASSED, ""),
    "tracefs without block events": (
        with_lines("tracefs\tno-block-events"), "KernelFeatures", CheckResult.WARNING, "no block events"),
    "a kernel built without block events": (
        with_lines("tracefs\tknown", "blk_trace\tn"), "KernelFeatures", CheckResult.WARNING, "comparing hashes"),
    "a file system without freeze": (
        with_lines("mount\t/dev/sdb zfs /tank"), "KernelFeatures", CheckResult.WARNING, "/tank (zfs)"),
    "no tar": (with_lines("tool\tgzip"), "Tools", CheckResult.ERROR, "no tar"),
    "little memory": (with_lines("memory_kib\t131072"), "Memory", CheckResult.ERROR, "128 MiB of memory"),
    "memory in use": (with_lines("memory_free_kib\t51200"), "Memory", CheckResult.WARNING, "only 50 MiB"),
    "no disk": (with_lines("disk\tsda 20971520 0 no"), "Disks", CheckResult.ERROR, "no disk is left"),
    "a name that does not resolve": (with_lines("resolved\t"), "HostNameMapping", CheckResult.WARNING, "db1 does not"),
    "Debian's 127.0.1.1": (with_lines("resolved\t127.0.1.1"), "HostNameMapping", CheckResult.PASSED, "loopback"),
    "an old address in /etc/hosts": (
        with_lines("resolved\t10.0.0.99"), "HostNameMapping", CheckResult.WARNING, "10.0.0.99, not an address"),
    "no service manager": (with_lines("service\t"), "ServiceManager", CheckResult.WARNING, "neither"),
    "SysV": (with_lines("service\tsysv"), "ServiceManager", CheckResult.PASSED, "SysV"),
    "an older agent": (
        with_lines("installed\t0.0.9-ffffffff"), "EarlierInstall", CheckResult.PASSED, "0.1.0-0123abcd will replace"),
    "/var on a full file system of its own": (
        with_lines("var\t1024 /var"), "FreeSpace", CheckResult.ERROR, "/var has 1 MiB free, /var/lib/farshore need 32"),
    "one full file system for all": (
        with_lines("opt\t102400 /", "var\t102400 /", "etc\t102400 /"),
        "FreeSpace", CheckResult.ERROR, "/opt/farshore and /var/lib/farshore and /etc/farshore need 217 MiB"),
}  # fmt: skip


@pytest.mark.parametrize(("facts", "name", "result", "words"), WRONG.values(), ids=WRONG)
def test_what_can_be_wrong(facts: Facts, name: str, result: CheckResult, words: str) -> None:
    found = {c.name: c for c in results(facts)}
    assert found[name].result is result, found[name]
    assert words in found[name].message
    assert bool(found[name].remedy) == (result is not CheckResult.PASSED), "what is wrong has a remedy"
    others = {c.name for c in found.values() if c.result is not CheckResult.PASSED} - {name}
    assert others <= {"OperatingSystem"}


def test_an_installed_bundle_needs_no_room_on_opt() -> None:
    facts = replace(with_lines("installed\t0.1.0-0123abcd"), opt=Space(40 * MIB, "/opt", False))
    assert checklist.free_space(facts, NEEDS).result is CheckResult.PASSED


DISKS: dict[str, tuple[tuple[str, ...], tuple[str, ...], CheckResult, str]] = {
    "by kernel name": (("sda",), (), CheckResult.PASSED, "to protect: sda"),
    "by path": (("/dev/sdb",), (), CheckResult.PASSED, "to protect: sdb"),
    "by a lasting id, which only the agent can tell": (("wwn-0x5000",), (), CheckResult.PASSED, "wwn-0x5000"),
    "a partition": (("sda1",), (), CheckResult.ERROR, "sda1, which the machine does not have"),
    "a stacked device": (("dm-0",), (), CheckResult.ERROR, "dm-0"),
    "both excluded": ((), ("sda", "sdb"), CheckResult.ERROR, "no disk is left"),
    "one excluded": ((), ("sdb",), CheckResult.PASSED, "to protect: sda"),
    "excluded and not there": ((), ("sdz",), CheckResult.WARNING, "sdz"),
}


@pytest.mark.parametrize(("include", "exclude", "result", "words"), DISKS.values(), ids=DISKS)
def test_disks(include: tuple[str, ...], exclude: tuple[str, ...], result: CheckResult, words: str) -> None:
    found = checklist.disks(FACTS, Source(address="10.0.0.4", include_disks=include, exclude_disks=exclude))
    assert (found.result, words in found.message) == (result, True), found


@pytest.mark.parametrize(
    ("before", "after", "result"),
    [
        pytest.param(1700000000.0, 1700000001.0, CheckResult.PASSED, id="equal"),
        pytest.param(1700000040.0, 1700000041.0, CheckResult.PASSED, id="40 s off"),
        pytest.param(1700000090.0, 1700000091.0, CheckResult.WARNING, id="90 s off"),
        pytest.param(1699999000.0, 1699999001.0, CheckResult.ERROR, id="1000 s ahead"),
        pytest.param(1699999880.0, 1700000120.0, CheckResult.PASSED, id="a slow answer is not called a wrong clock"),
    ],
)
def test_clock(before: float, after: float, result: CheckResult) -> None:
    assert checklist.clock(FACTS, before, after).result is result


def test_a_public_address_is_named() -> None:
    found = checklist.public_address(["20.50.2.1"])
    assert (found.result, "20.50.2.1" in found.message) == (CheckResult.WARNING, True)
    assert checklist.public_address(["10.1.2.3", "fe80::1%eth0"]).result is CheckResult.PASSED


def test_facts_survive_a_machine_that_says_nothing_or_nonsense() -> None:
    for text in ("", "disk\tsda x y\nmount\tx\nmemory_kib\tmany\nno tab here\n"):
        facts: Any = parse_facts(text)
        assert (facts.disks, facts.mounts, facts.memory_bytes) == ((), (), 0)
