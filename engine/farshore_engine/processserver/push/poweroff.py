"""How a source machine is powered off over SSH: one shell script that picks the orderly way the machine has.

There is deliberately no fallback to /proc/sysrq-trigger: in a machine that shares its kernel (a container, a
namespace host) it would power off the whole host. `poweroff -f` and reboot(2) act on the machine's own PID
namespace only.
"""

POWEROFF_SCRIPT = """\
sync
if [ -d /run/systemd/system ] && command -v systemctl >/dev/null 2>&1; then exec systemctl poweroff; fi
if [ "$(readlink /proc/self/ns/pid 2>/dev/null)" != "" ] && [ -x /opt/farshore/current/bin/farshore-agent ]; then
    /opt/farshore/current/bin/farshore-agent poweroff && exit 0
fi
for command in poweroff 'halt -p' 'shutdown -h now'; do
    # shellcheck disable=SC2086
    command -v ${command%% *} >/dev/null 2>&1 && exec $command
done
echo 'no way to power this machine off: neither systemctl, poweroff, halt nor shutdown is there' >&2
exit 69
"""
