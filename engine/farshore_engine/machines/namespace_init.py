"""Process 1 of a namespace machine; runs as a script of its own, with the standard library alone.

It gets a plan (JSON) on standard input, enters the machine's network namespace, makes the other namespaces, and forks.
The parent records the child's pid and ends. The child waits for that record (a machine that nobody could find again
must not come up), builds the machine's root, pivots into it, mounts the disks, starts sshd, runs the recovery scripts,
and then reaps orphans until it gets SIGTERM, which is this machine's power button.

What happens is written to `boot.json` in the machine's directory, held open since before the pivot.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = (
    0x20000,
    0x4000000,
    0x8000000,
    0x20000000,
    0x40000000,
)
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 0x1000, 0x4000, 0x40000
MNT_DETACH = 2
FITHAW = 0xC0045878
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "USER": "root",
    "LOGNAME": "root",
    "SHELL": "/bin/bash",
    "LANG": "C.UTF-8",
}
SSHD_CONFIG = """\
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin {root}
PasswordAuthentication {password}
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PrintMotd no
PidFile none
AcceptEnv LANG LC_*
Subsystem sftp internal-sftp
"""
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
POWER_OFF = "#!/bin/sh\n# The power button of this machine is a SIGTERM to its process 1.\nexec kill -TERM 1\n"

libc = ctypes.CDLL(None, use_errno=True)


class PowerOff(Exception):
    """Somebody pressed the power button."""


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(kind: str, target: str, *, source: str = "none", flags: int = 0, options: str = "") -> None:
    arguments = (
        source.encode(),
        target.encode(),
        kind.encode() or None,
        ctypes.c_ulong(flags),
        options.encode() or None,
    )
    _check(libc.mount(*arguments), f"mount {kind or 'bind'} {target}")


def _write(path: Path, content: str, mode: int = 0o644) -> None:
    path.unlink(missing_ok=True)  # never through a symbolic link of the host's root
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(mode)


class BootRecord:
    """Writes `boot.json` through a directory handle, which works on both sides of the pivot."""

    def __init__(self, directory: str) -> None:
        self._directory = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._content: dict[str, Any] = {"phase": "starting", "error": "", "scripts": []}

    def update(self, **changes: object) -> None:
        """Replace fields and put the record in place, whole or not at all."""
        self._content |= changes
        self.put("boot.json", self._content)

    def put(self, name: str, content: object) -> None:
        """Replace one file of the machine's directory."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        handle = os.open(name + ".new", flags, 0o600, dir_fd=self._directory)
        with os.fdopen(handle, "w") as file:
            json.dump(content, file)
        os.rename(name + ".new", name, src_dir_fd=self._directory, dst_dir_fd=self._directory)


def build_root(plan: dict[str, Any]) -> None:
    """Lay the machine's root over the host's and pivot into it; the working directory is the machine's own."""
    _mount("", "/", flags=MS_REC | MS_PRIVATE)
    for name in ("upper", "work", "merged", "homes/root", "homes/home", "ssh"):
        Path(name).mkdir(mode=0o755, parents=True, exist_ok=True)
    Path("homes/root").chmod(0o700)
    _mount("overlay", "merged", source="overlay", options="lowerdir=/,upperdir=upper,workdir=work")
    root = Path("merged")
    for name in ("proc", "sys", "dev", "run", "tmp", "root", "home", "etc/ssh", ".host"):
        (root / name).mkdir(parents=True, exist_ok=True)
    _fill_dev(root / "dev", plan["nodes"])
    _mount("tmpfs", str(root / "run"), flags=MS_NOSUID | MS_NODEV, options="mode=755")
    _mount("tmpfs", str(root / "tmp"), flags=MS_NOSUID | MS_NODEV, options="mode=1777")
    for source, target in (("homes/root", "root"), ("homes/home", "home"), ("ssh", "etc/ssh")):
        _mount("", str(root / target), source=source, flags=MS_BIND)
    for masked in plan["masked"]:
        target = root / masked.lstrip("/")
        if target.is_dir():
            _mount("tmpfs", str(target), flags=MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, options="mode=755")
    os.chdir(root)
    subprocess.run(["pivot_root", ".", ".host"], check=True)
    os.chdir("/")
    _mount("proc", "/proc", source="proc", flags=MS_NOSUID | MS_NODEV | MS_NOEXEC)
    _mount("sysfs", "/sys", source="sysfs", flags=MS_NOSUID | MS_NODEV | MS_NOEXEC)
    # The magic SysRq file acts on the host: a machine must not be able to power that off.
    if Path("/proc/sysrq-trigger").exists():
        _mount("", "/proc/sysrq-trigger", source="/dev/null", flags=MS_BIND)
    _mount("debugfs", "/sys/kernel/debug")
    _mount("tracefs", "/sys/kernel/tracing")
    _check(libc.umount2(b"/.host", MNT_DETACH), "umount /.host")


def _fill_dev(dev: Path, nodes: list[str]) -> None:
    _mount("tmpfs", str(dev), flags=MS_NOSUID, options="mode=755")
    for node in (*(f"/dev/{name}" for name in DEVICES), *nodes):
        status = Path(node).stat()
        os.mknod(dev / Path(node).name, status.st_mode, status.st_rdev)
        (dev / Path(node).name).chmod(stat.S_IMODE(status.st_mode))
    for name in ("pts", "shm"):
        (dev / name).mkdir()
    _mount("devpts", str(dev / "pts"), flags=MS_NOSUID | MS_NOEXEC, options="newinstance,ptmxmode=0666,mode=620,gid=5")
    _mount("tmpfs", str(dev / "shm"), flags=MS_NOSUID | MS_NODEV, options="mode=1777")
    for name, target in (("ptmx", "pts/ptmx"), ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0")):
        (dev / name).symlink_to(target)
    for number, name in ((1, "stdout"), (2, "stderr")):
        (dev / name).symlink_to(f"/proc/self/fd/{number}")


def make_identity(plan: dict[str, Any]) -> None:
    """Give the machine its own names, accounts and host key; no password hash of the host stays readable in it."""
    name = plan["hostname"]
    _write(Path("/etc/hostname"), name + "\n")
    _write(Path("/etc/hosts"), "\n".join(["127.0.0.1 localhost", f"{plan['address']} {name}", *plan["hosts"]]) + "\n")
    _write(Path("/etc/machine-id"), plan["machine_id"] + "\n")
    _write(
        Path("/etc/fstab"),
        "".join(f"{m['device']} {m['path']} {m['kind']} {m['options']} 0 0\n" for m in plan["mounts"]),
    )
    locked = [line.split(":") for line in Path("/etc/shadow").read_text().splitlines()]
    _write(Path("/etc/shadow"), "".join(":".join([f[0], "*", *f[2:]]) + "\n" for f in locked), 0o600)
    for tool in ("poweroff", "shutdown", "halt"):
        _write(Path("/usr/sbin") / tool, POWER_OFF, 0o755)
    for account in plan["accounts"]:
        _make_account(account)
    if not Path("/etc/ssh/ssh_host_ed25519_key").exists():
        keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", "/etc/ssh/ssh_host_ed25519_key"]
        subprocess.run(keygen, check=True, stdin=subprocess.DEVNULL)
    passwords = [account["user"] for account in plan["accounts"] if account["password"]]
    root = "yes" if "root" in passwords else "prohibit-password"
    _write(Path("/etc/ssh/sshd_config"), SSHD_CONFIG.format(root=root, password="yes" if passwords else "no"))


def _make_account(account: dict[str, Any]) -> None:
    user = account["user"]
    home = Path("/root") if user == "root" else Path("/home") / user
    if user != "root" and subprocess.run(["id", "-u", user], capture_output=True).returncode != 0:
        subprocess.run(["useradd", "-M", "-d", str(home), "-s", "/bin/bash", "-p", "*", user], check=True)
    if account["password"]:
        subprocess.run(["chpasswd", "-c", "SHA512"], input=f"{user}:{account['password']}\n", text=True, check=True)
    home.mkdir(exist_ok=True)
    (home / ".ssh").mkdir(mode=0o700, exist_ok=True)
    _write(home / ".ssh/authorized_keys", "".join(key.strip() + "\n" for key in account["authorized_keys"]), 0o600)
    if account["sudo"]:
        # Without a password there is nothing that sudo could ask for.
        rule = f"{user} ALL=(ALL:ALL) {'' if account['password'] else 'NOPASSWD: '}ALL\n"
        _write(Path("/etc/sudoers.d") / f"farshore-{user}", rule, 0o440)
    if user != "root":
        subprocess.run(["chown", "-R", f"{user}:", str(home)], check=True)


def mount_disks(mounts: list[dict[str, str]]) -> None:
    """Mount the file systems of the disks, in the order of the plan."""
    for item in mounts:
        Path(item["path"]).mkdir(parents=True, exist_ok=True)
        command = [
            "mount",
            "-t",
            item["kind"] or "auto",
            "-o",
            item["options"] or "defaults",
            item["device"],
            item["path"],
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise OSError(f"{item['device']} cannot be mounted at {item['path']}: {done.stderr.strip()}")


def start_sshd() -> None:
    """Start sshd and wait until it answers; raises OSError when it ends or stays silent for a minute."""
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    child = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e"], start_new_session=True, env=ENVIRONMENT)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise OSError(f"sshd ended with code {child.returncode}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", 22)) == 0:
                return
        time.sleep(0.02)
    raise OSError("sshd did not open port 22 within 60 s")


def run_scripts(plan: dict[str, Any], record: BootRecord) -> None:
    """Run the recovery scripts in order; each one's exit code is recorded, none stops the next."""
    results: list[dict[str, Any]] = []
    directory = Path("/run/farshore/recovery.d")
    for script in plan["scripts"]:
        path = directory / Path(script["name"]).name
        _write(path, script["content"], script["mode"])
        print(f"--- recovery script {script['name']}", flush=True)
        begun = time.monotonic()
        code = run_script(path, plan["script_seconds"])
        results.append({"name": script["name"], "exit": code, "seconds": round(time.monotonic() - begun, 3)})
        record.update(scripts=results)


def run_script(path: Path, seconds: float) -> int:
    """Run one script in a session of its own; its exit code, or 124 (as timeout(1) has it) when it had to be killed."""
    # A shell in between: daemons take a parent with pid 1 as the sign that they are in the background already.
    child = subprocess.Popen(["sh", "-c", '"$0"; exit $?', str(path)], start_new_session=True)
    try:
        return child.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        return 124


def reap_for_ever() -> NoReturn:
    """Collect every orphan; leaves by PowerOff."""
    while True:
        try:
            os.wait()
        except ChildProcessError:
            time.sleep(0.2)


def power_off(mounts: list[dict[str, str]]) -> None:
    """Thaw, end every process, and unmount the disks, so that what was written is on them."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    thaw([item["path"] for item in mounts])
    for number, seconds in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 1.0)):
        try:
            os.kill(-1, number)
        except ProcessLookupError:
            break
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if os.waitpid(-1, os.WNOHANG) == (0, 0):
                    time.sleep(0.01)
            except ChildProcessError:
                break
    for item in reversed(mounts):  # the machine's own: what else is dirty on this host may take minutes
        sync(item["path"])
        libc.umount2(item["path"].encode(), 0)
    fall_silent()


def sync(path: str) -> None:
    """Write back one file system; one that is not there or fails is no reason to stay on."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    libc.syncfs(handle)
    os.close(handle)


def fall_silent() -> None:
    """Take the network down: a machine that is off does not even refuse a connection, as its namespace still would."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for _, name in socket.if_nameindex():
            request = struct.pack("16sh14x", name.encode(), 0)
            try:
                flags = struct.unpack("16sh14x", fcntl.ioctl(control, SIOCGIFFLAGS, request))[1]
                fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", name.encode(), flags & ~IFF_UP))
            except OSError:
                continue  # it may not be ours to take down


def thaw(paths: list[str]) -> None:
    """Thaw file systems that a killed agent may have left frozen; one that is not frozen is left as it is."""
    for path in paths:
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.ioctl(handle, FITHAW, 0)
        except OSError:
            continue  # EINVAL: it was not frozen
        finally:
            os.close(handle)


def be_the_machine(plan: dict[str, Any], record: BootRecord) -> int:
    """The life of process 1; gives its exit code."""

    def press(*_: object) -> None:
        raise PowerOff

    if os.getpid() != 1:  # power_off signals every process that it can see
        raise SystemExit("this is not process 1 of a pid namespace")
    signal.signal(signal.SIGTERM, press)
    try:
        socket.sethostname(plan["hostname"])
        build_root(plan)
        os.environ.clear()
        os.environ.update(ENVIRONMENT)
        make_identity(plan)
        mount_disks(plan["mounts"])
        start_sshd()
        run_scripts(plan, record)
        record.update(phase="ready")
        reap_for_ever()
    except PowerOff:
        power_off(plan["mounts"])
        record.update(phase="off")
        return 0
    except (OSError, subprocess.CalledProcessError) as failed:
        record.update(phase="failed", error=str(failed))
        return 1


def main() -> int:
    """Enter the namespaces, fork process 1, record it."""
    plan = json.load(sys.stdin)
    os.chdir(plan["directory"])
    os.umask(0o022)
    record = BootRecord(".")
    record.update()
    handle = os.open(plan["netns"], os.O_RDONLY | os.O_CLOEXEC)
    _check(libc.setns(handle, CLONE_NEWNET), "enter the network namespace")
    os.close(handle)
    _check(libc.unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID), "make the namespaces")
    gate, opener = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(opener)
        os.close(plan["lock"])  # the parent holds it until the record is written
        if os.read(gate, 1) != b"!":  # the parent died before it wrote down who we are
            return 1
        os.close(gate)
        return be_the_machine(plan, record)
    started = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[19])
    record.put("init.json", {"pid": child, "start_ticks": started})
    os.write(opener, b"!")
    return 0


if __name__ == "__main__":
    sys.exit(main())
