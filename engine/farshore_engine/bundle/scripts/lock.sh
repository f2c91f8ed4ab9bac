# Put before every script that changes the machine: waits until no other push is at work, such as the rest of one whose
# process server died. Variables: ROOT. The lock is a symbolic link to its holder's process id; exit code 75: it stays held.
# shellcheck shell=sh disable=SC2154
mkdir -p "$ROOT" || exit 1
chmod 755 "$ROOT"
tries=0
until ln -s $$ "$ROOT/.lock" 2>/dev/null; do
    holder=$(readlink "$ROOT/.lock" || true)
    if [ -z "$holder" ] || ! grep -q "$ROOT" "/proc/$holder/cmdline" 2>/dev/null; then
        rm -f "$ROOT/.lock"
        if [ ! -w "$ROOT" ]; then
            echo "$ROOT cannot be written to" >&2
            exit 1
        fi
    fi
    tries=$((tries + 1))
    if [ "$tries" -ge 90 ]; then
        echo "process $holder holds $ROOT/.lock" >&2
        exit 75
    fi
    if [ -n "$holder" ]; then sleep 1; fi
done
trap 'rm -f "$ROOT/.lock"' EXIT
