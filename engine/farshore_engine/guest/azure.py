"""What a machine needs to run on Azure: a serial console, and the drivers of Hyper-V in the initial file system.

Nothing of the guest is run here, so its initial file system is not made anew: Debian's and Ubuntu's hold the drivers
already (MODULES=most), and the settings hold for the next one that the guest makes.
"""

from __future__ import annotations

import re

from farshore_engine.guest.tree import NOTE, Tree

CONSOLE = "console=tty1 console=ttyS0,115200n8 earlyprintk=ttyS0,115200"
GRUB, GRUB_CONFIGS = "/etc/default/grub", ("/boot/grub/grub.cfg", "/boot/grub2/grub.cfg")
MODULES, DRACUT = "/etc/initramfs-tools/modules", "/etc/dracut.conf.d/farshore-hyperv.conf"
DRIVERS = ("hv_vmbus", "hv_storvsc", "hv_netvsc", "hv_utils")
KERNEL_LINE = re.compile(r"^(\s*linux(?:16|efi)?\s+\S+.*)$", re.MULTILINE)
DEFAULT_LINE = re.compile(r"""^(GRUB_CMDLINE_LINUX=)(["']?)(.*?)\2\s*$""", re.MULTILINE)


def prepare_azure(tree: Tree) -> list[str]:
    """Add what is missing; returns each change."""
    changes = _console(tree)
    modules = tree.read(MODULES)
    if modules is not None:
        missing = [name for name in DRIVERS if name not in modules.split()]
        if missing and tree.write(MODULES, modules.rstrip("\n") + "\n" + "\n".join(missing) + "\n"):
            changes.append(f"azure: {', '.join(missing)} in {MODULES}, for the next initial file system")
    elif tree.is_directory("/etc/dracut.conf.d") and tree.write(DRACUT, f'add_drivers+=" {" ".join(DRIVERS)} "\n'):
        changes.append(f"azure: {', '.join(DRIVERS)} in {DRACUT}, for the next initial file system")
    if not tree.exists("/usr/sbin/waagent"):
        changes.append(f"{NOTE}azure: the Azure Linux agent (waagent) is not installed; the machine runs without it")
    return changes


def _console(tree: Tree) -> list[str]:
    changes = []
    default = tree.read(GRUB)
    if default is not None and "console=ttyS0" not in default:
        changed = DEFAULT_LINE.sub(lambda m: f'{m[1]}"{f"{m[3]} {CONSOLE}".strip()}"', default)
        if changed == default:
            changed = f'{default.rstrip()}\nGRUB_CMDLINE_LINUX="{CONSOLE}"\n'
        tree.write(GRUB, changed)
        changes.append(f"azure: serial console in {GRUB}")
    for path in GRUB_CONFIGS:
        text = tree.read(path)
        if text is None or not KERNEL_LINE.search(text):
            continue
        changed = KERNEL_LINE.sub(lambda m: m[1] if "console=ttyS0" in m[1] else f"{m[1].rstrip()} {CONSOLE}", text)
        if changed != text and tree.write(path, changed):
            changes.append(f"azure: serial console on the kernel's command line in {path}")
    return changes
