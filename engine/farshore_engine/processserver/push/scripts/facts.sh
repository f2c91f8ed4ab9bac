# Prints what the preflight checks must know of this machine, one "name<TAB>value" on a line. It changes nothing.
# shellcheck shell=sh
tab=$(printf '\t')
say() { printf '%s%s%s\n' "$1" "$tab" "$2"; }

say clock "$(date +%s)"
say system "$(uname -s)"
say architecture "$(uname -m)"
say kernel "$(uname -r)"
say hostname "$(uname -n)"
say uid "$(id -u)"

for file in /etc/os-release /usr/lib/os-release; do
    if [ -r "$file" ]; then
        # shellcheck disable=SC1090
        say os "$(. "$file" && printf '%s' "${PRETTY_NAME:-$ID}")"
        break
    fi
done
if [ ! -r /etc/os-release ] && [ -r /etc/redhat-release ]; then say os "$(head -n 1 /etc/redhat-release)"; fi

say cpu_flags "$(grep -m 1 '^flags' /proc/cpuinfo | cut -d : -f 2)"
say memory_kib "$(awk '/^MemTotal:/ {print $2}' /proc/meminfo)"
say memory_free_kib "$(awk '/^MemAvailable:/ {print $2; seen = 1} /^(MemFree|Cached):/ {sum += $2}
    END {if (!seen) print sum}' /proc/meminfo)"

# Tracking: tracefs may have to be mounted by the agent, so a file system that the kernel knows counts too.
for place in /sys/kernel/tracing /sys/kernel/debug/tracing; do
    if [ -d "$place/events/block/block_rq_complete" ]; then say tracefs events; break; fi
    if [ -d "$place/events" ]; then say tracefs no-block-events; break; fi
done
if grep -qw -e tracefs /proc/filesystems; then say tracefs known; fi
if grep -qw -e debugfs /proc/filesystems; then say tracefs debugfs; fi
for config in "/boot/config-$(uname -r)" /lib/modules/"$(uname -r)"/config; do
    if [ -r "$config" ]; then say blk_trace "$(grep '^CONFIG_BLK_DEV_IO_TRACE=' "$config" | cut -d = -f 2)"; break; fi
done
if [ -r /sys/kernel/security/lockdown ]; then say lockdown "$(cat /sys/kernel/security/lockdown)"; fi

# Space: of the directory or the nearest one above it that exists.
space() {
    place=$2
    while [ ! -d "$place" ]; do place=$(dirname "$place"); done
    say "$1" "$(df -Pk "$place" | awk 'NR > 1 {free = $(NF - 2); where = $NF} END {print free, where}')"
    if [ ! -w "$place" ]; then say read_only "$2"; fi
}
space opt /opt/farshore
space var /var/lib/farshore
space etc /etc/farshore

# name size-in-512-byte-sectors read-only node-opens; the agent protects whole disks, never what lies on top of them.
for disk in /sys/block/*; do
    name=${disk##*/}
    node=no
    if [ -b "/dev/$name" ] && { [ "$(id -u)" != 0 ] || (: <"/dev/$name") 2>/dev/null; }; then node=yes; fi
    say disk "$name $(cat "$disk/size") $(cat "$disk/ro") $node"
done
while read -r device point kind _; do
    case $device in
    /dev/*) say mount "$device $kind $point" ;;
    esac
done </proc/self/mounts

# Host name: what it resolves to, and the machine's own addresses.
if command -v getent >/dev/null 2>&1; then
    getent ahosts "$(uname -n)" | awk '{print $1}' | sort -u | while read -r address; do say resolved "$address"; done
elif [ -r /etc/hosts ]; then
    awk -v name="$(uname -n)" '{sub(/#.*/, ""); for (i = 2; i <= NF; i++) if ($i == name) print $1}' /etc/hosts |
        while read -r address; do say resolved "$address"; done
fi
if command -v ip >/dev/null 2>&1; then
    ip -o addr show | awk '{sub(/\/.*/, "", $4); print $4}' | while read -r address; do say address "$address"; done
elif command -v hostname >/dev/null 2>&1; then
    for address in $(hostname -I); do say address "$address"; done
    say address 127.0.0.1
fi

for tool in tar gzip sha256sum tail readlink mktemp; do
    if command -v "$tool" >/dev/null 2>&1; then say tool "$tool"; fi
done

if [ -d /run/systemd/system ]; then
    say service systemd
elif [ -d /etc/init.d ] && [ -x /sbin/init ]; then
    case $(readlink -f /sbin/init) in
    *systemd*) ;;
    *)
        for tool in update-rc.d chkconfig; do
            if command -v "$tool" >/dev/null 2>&1; then say service sysv; break; fi
        done
        ;;
    esac
fi
if command -v getenforce >/dev/null 2>&1; then say selinux "$(getenforce)"; fi

if [ -L /opt/farshore/current ]; then say installed "$(readlink /opt/farshore/current)"; fi
for unit in /etc/systemd/system/farshore-agent.service /etc/init.d/farshore-agent; do
    if [ -e "$unit" ]; then say unit "$unit"; fi
done
if [ -e /etc/farshore/agent/config.json ]; then say configured yes; fi
if [ -d /usr/local/ASR ]; then say other 'the Azure Site Recovery Mobility service (/usr/local/ASR)'; fi
exit 0
