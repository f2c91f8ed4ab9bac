"""Guests are prepared offline: what is promised is changed, once; nothing outside of a guest's tree ever is."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from farshore_engine.contract.machine import FileSystem, MachineDescription, MachineDisk, Partition
from farshore_engine.contract.tasks import GuestPreparation, NetworkSettings
from farshore_engine.guest.offline import prepare_disks
from farshore_engine.machines import loop
from farshore_engine.machines.spec import DiskFile

STATIC = NetworkSettings(address="10.1.0.4/24", gateway="10.1.0.1", dns=("10.1.0.2",))
GRUB = 'GRUB_DEFAULT=0\nGRUB_CMDLINE_LINUX="quiet"\n'
GRUB_CFG = "set timeout=0\nlinux /vmlinuz root=LABEL=x ro quiet\ninitrd /initrd.img\nboot\n"
OLD_INTERFACES = "auto eth0\niface eth0 inet static\n    address 192.168.0.7/24\n"
AGENT = {
    "etc/farshore/agent/config.json": "{}",
    "etc/farshore/agent/key.pem": "secret",
    "etc/farshore/stop.d/shop": "#!/bin/sh\n",
    "var/lib/farshore/state": "x",
    "etc/systemd/system/farshore-agent.service": "[Unit]\n",
}


class Guest:
    """A disk with a GPT, a root and a boot partition, and a data disk without partitions."""

    def __init__(self, directory: Path, kind: str = "ext4") -> None:
        self.directory = directory
        self.kind = kind
        self.has_network = False
        self.disk, self.data = directory / "disk-0.raw", directory / "disk-1.raw"
        for path, size in ((self.disk, 400), (self.data, 16)):
            with path.open("wb") as file:
                file.truncate(size << 20)
        layout = ["mklabel", "gpt", "mkpart", "root", "1MiB", "350MiB", "mkpart", "boot", "350MiB", "100%"]
        subprocess.run(["parted", "--script", str(self.disk), *layout], check=True, capture_output=True)
        with self.attached() as device:
            make = ["mkfs.xfs", "-q"] if kind == "xfs" else ["mkfs.ext4", "-q", "-F"]
            subprocess.run([*make, f"{device}p1"], check=True, capture_output=True)
            subprocess.run(["mkfs.ext4", "-q", "-F", f"{device}p2"], check=True, capture_output=True)
            self.uuids = [self._uuid(f"{device}p{number}") for number in (1, 2)]
        subprocess.run(["mkfs.ext4", "-q", "-F", str(self.data)], check=True, capture_output=True)

    @contextmanager
    def attached(self) -> Iterator[str]:
        device = loop.attach(self.disk)
        try:
            yield device
        finally:
            assert not loop.detach(self.disk, patience=60)

    @contextmanager
    def mounted(self) -> Iterator[Path]:
        place = self.directory / "look"
        place.mkdir(exist_ok=True)
        options = ["-o", "nouuid"] if self.kind == "xfs" else []
        with self.attached() as device:
            subprocess.run(["mount", *options, f"{device}p1", str(place)], check=True)
            try:
                (place / "boot").mkdir(exist_ok=True)
                subprocess.run(["mount", f"{device}p2", str(place / "boot")], check=True)
                try:
                    yield place
                finally:
                    subprocess.run(["umount", str(place / "boot")], check=True)
            finally:
                subprocess.run(["umount", str(place)], check=True)

    def fill(self, **files: str) -> None:
        with self.mounted() as root:
            for name, text in {"etc/os-release": "ID=debian\n", "etc/hostname": "shop\n", **AGENT, **files}.items():
                path = root / name.replace("__", "/")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            wants = root / "etc/systemd/system/multi-user.target.wants"
            wants.mkdir(parents=True, exist_ok=True)
            (wants / "farshore-agent.service").symlink_to("/etc/systemd/system/farshore-agent.service")

    def read(self, name: str) -> str | None:
        with self.mounted() as root:
            path = root / name
            return path.read_text() if path.exists() else None

    def prepare(self, **wanted: object) -> tuple[list[str], list[str]]:
        boot = FileSystem(kind="ext4", uuid=self.uuids[1], mount_point="/boot")
        system = FileSystem(kind=self.kind, uuid=self.uuids[0], mount_point="/")
        parts = (
            Partition(name="sda1", number=1, start_bytes=1 << 20, size_bytes=1, file_system=system),
            Partition(name="sda2", number=2, start_bytes=1 << 28, size_bytes=1, file_system=boot),
        )
        described = MachineDescription(
            hostname="shop", disks=(MachineDisk(id="a", name="sda", size_bytes=1, partitions=parts),)
        )
        disks = (DiskFile(self.disk, "a", "sda"), DiskFile(self.data, "b", "sdb"))
        found = prepare_disks(disks, described, GuestPreparation(**wanted))  # type: ignore[arg-type]
        assert not loop.devices_of(self.disk)
        self.has_network = found.network
        return list(found.changes), list(found.notes)

    def _uuid(self, node: str) -> str:
        words = ["blkid", "--probe", "--match-tag", "UUID", "--output", "value", node]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_the_agent_loses_its_identity_and_the_rest_of_the_guest_stays(tmp_path: Path, kind: str) -> None:
    guest = Guest(tmp_path, kind)
    guest.fill(**{"etc/machine-id": "abc\n", "etc/ssh/ssh_host_ed25519_key": "the host's key"})
    changes, _ = guest.prepare()
    assert any("/etc/farshore/agent was removed" in change for change in changes)
    assert any("multi-user.target.wants/farshore-agent.service" in change for change in changes)
    with guest.mounted() as root:
        assert not (root / "etc/farshore/agent").exists()
        assert not (root / "var/lib/farshore").exists()
        assert (root / "etc/farshore/stop.d/shop").exists(), "hooks are the user's"
        kept = [
            (root / name).read_text() for name in ("etc/machine-id", "etc/ssh/ssh_host_ed25519_key", "etc/hostname")
        ]
    assert kept == ["abc\n", "the host's key", "shop\n"]
    assert guest.prepare()[0] == [], "a second time there is nothing to change"


@pytest.mark.parametrize(
    ("files", "settings", "path", "holds"),
    [
        pytest.param(
            {"etc/network/interfaces": OLD_INTERFACES}, STATIC, "etc/network/interfaces",
            ["auto /e*=farshore", "iface farshore inet static", "address 10.1.0.4/24", "gateway 10.1.0.1"],
            id="ifupdown, static",
        ),
        pytest.param(
            {"etc/network/interfaces": OLD_INTERFACES}, NetworkSettings(), "etc/network/interfaces",
            ["iface farshore inet dhcp"], id="ifupdown, DHCP",
        ),
        pytest.param(
            {"etc/systemd/system/multi-user.target.wants/systemd-networkd.service": ""}, STATIC,
            "etc/systemd/network/05-farshore.network", ["Type=ether", "Address=10.1.0.4/24", "DNS=10.1.0.2"],
            id="networkd, static",
        ),
        pytest.param(
            {"etc/netplan/01-installer.yaml": "network: {}\n"}, NetworkSettings(), "etc/netplan/90-farshore.yaml",
            ['"dhcp4": true', '"name": "e*"'], id="netplan, DHCP",
        ),
    ],
)  # fmt: skip
def test_the_guest_gets_the_network_of_its_target_and_its_own_back(
    tmp_path: Path, files: dict[str, str], settings: NetworkSettings, path: str, holds: list[str]
) -> None:
    guest = Guest(tmp_path)
    guest.fill(**files)
    changes, _ = guest.prepare(network=settings)
    assert guest.has_network
    text = guest.read(path)
    assert text is not None
    for part in holds:
        assert part in text
    assert [change for change in changes if change.startswith("network")]
    if path.endswith(".yaml"):
        assert json.loads(text.partition("\n")[2])["network"]["version"] == 2
        assert guest.read("etc/netplan/01-installer.yaml") is None
    assert guest.prepare(network=settings)[0] == []
    assert guest.prepare(restore_network=True)[0]
    for name, old in files.items():
        assert guest.read(name) == old, "as it was before"
    assert guest.prepare(restore_network=True)[0] == []


def test_azure_gets_a_console_and_its_drivers(tmp_path: Path) -> None:
    guest = Guest(tmp_path)
    guest.fill(
        **{"etc/default/grub": GRUB, "boot/grub/grub.cfg": GRUB_CFG, "etc/initramfs-tools/modules": "# modules\n"}
    )
    changes, notes = guest.prepare(azure=True)
    assert len([change for change in changes if change.startswith("azure")]) == 3
    assert any("waagent" in note for note in notes)
    assert 'GRUB_CMDLINE_LINUX="quiet console=tty1 console=ttyS0,115200n8' in (guest.read("etc/default/grub") or "")
    assert "ro quiet console=tty1 console=ttyS0" in (guest.read("boot/grub/grub.cfg") or "")
    assert "hv_storvsc" in (guest.read("etc/initramfs-tools/modules") or "").split()
    assert guest.prepare(azure=True)[0] == []


def test_links_of_a_hostile_guest_lead_nowhere(tmp_path: Path) -> None:
    guest, outside = Guest(tmp_path), tmp_path / "outside"
    outside.mkdir()
    victims = [outside / "interfaces", outside / "agent"]
    victims[0].write_text("the host's\n")
    victims[1].mkdir()
    (victims[1] / "key.pem").write_text("the host's\n")
    guest.fill()
    with guest.mounted() as root:
        subprocess.run(["rm", "-rf", str(root / "etc/farshore/agent")], check=True)
        (root / "etc/farshore/agent").symlink_to(victims[1])
        (root / "etc/network").symlink_to("../../../../../../../.." + str(outside))
        (root / "var/lib/farshore").rename(root / "var/lib/old")
        (root / "var/lib/farshore").symlink_to(outside)
    guest.prepare(network=STATIC)
    assert victims[0].read_text() == "the host's\n"
    assert (victims[1] / "key.pem").read_text() == "the host's\n"
    assert sorted(path.name for path in outside.iterdir()) == ["agent", "interfaces"]


def test_disks_without_a_system_and_kinds_that_are_not_known_are_left_alone(tmp_path: Path) -> None:
    guest = Guest(tmp_path)
    before = guest.data.read_bytes()
    changes, notes = guest.prepare(network=STATIC)
    assert changes == []
    assert "no system is on these disks: nothing to prepare" in notes
    assert len(before) == guest.data.stat().st_size
