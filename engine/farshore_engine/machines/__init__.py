"""Machines on the appliance's own host: the runtime of the `local` provider.

Two kinds, one interface (`runtime.MachineRuntime`):

* `qemu` boots a machine's own disk (module `qemu`);
* `namespace` brings up a machine whose disks hold only data: own network, host name, processes and root file system,
  own sshd, the disks mounted where they were, and the recovery scripts run (module `namespace`).

Every name that reaches the kernel (network namespace, veth, bridge) derives from the run directory and the machine's
name, so whoever comes after a crash finds what was left, finishes it or removes it. Nothing here outlives `stop`.
Needs root, iproute2, util-linux, openssh-server, e2fsprogs/xfsprogs and, for QEMU, qemu-system-x86.
"""
