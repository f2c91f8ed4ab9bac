"""How a source machine is powered off over SSH: one shell script that picks the orderly way the machine has.

There is deliberately no fallback to the magic SysRq file: in a machine that shares its kernel (a container, a
namespace host) it would power off the whole host. `poweroff -f` is reboot(2), which acts on the machine's own PID
namespace only.
"""

POWEROFF_SCRIPT = """\
if [ -d /run/systemd/system ]; then exec systemctl poweroff; fi
for command in poweroff 'shutdown -h now' 'halt -p'; do
    # shellcheck disable=SC2086
    command -v ${command%% *} >/dev/null 2>&1 && $command && exit 0
done
# The ways above write back what is in memory when the programs have ended. This one does not, and before them it could
# take so long on a busy machine that nobody waits for the rest of this script.
sync
command -v poweroff >/dev/null 2>&1 && poweroff -f && exit 0
echo 'no way to power this machine off: poweroff, shutdown and halt all failed' >&2
exit 69
"""
