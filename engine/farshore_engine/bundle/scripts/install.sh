#!/bin/sh
# Installs this agent by hand, for machines that allow no push. Unpack the bundle anywhere and run, as root:
#
#   sh install.sh --server HOST:PORT --token TOKEN
#
# HOST:PORT is the process server's data port, TOKEN comes from `farshore agent token VM`. Run it again, without
# arguments, to replace an older agent by this one; a new token renews the certificate,
# which the running agent reads when it dials again.
# shellcheck disable=SC2034
set -eu
umask 022
ROOT=@INSTALL_ROOT@
ID=@ID@
RESTART=no
here=$(CDPATH='' cd "$(dirname "$0")" && pwd -P)
if [ "$(id -u)" != 0 ]; then
    echo 'run this as root' >&2
    exit 1
fi
@LOCK@
if [ "$here" != "$ROOT/$ID" ] && [ ! -f "$ROOT/$ID/bundle.json" ]; then
    rm -rf "$ROOT/.partial-$ID"
    cp -R "$here" "$ROOT/.partial-$ID"
    chown -R 0:0 "$ROOT/.partial-$ID"
    if command -v selinuxenabled >/dev/null 2>&1 && selinuxenabled; then
        chcon -R -t bin_t "$ROOT/.partial-$ID/bin" "$ROOT/.partial-$ID/lib" || true
    fi
    mv "$ROOT/.partial-$ID" "$ROOT/$ID"
fi
mkdir -p /etc/farshore/recovery.d /etc/farshore/hooks.d
if [ $# -gt 0 ] || [ ! -f /etc/farshore/agent/config.json ]; then
    "$ROOT/$ID/bin/farshore-agent" enrol "$@"
fi
if [ -d /run/systemd/system ]; then
    MANAGER=systemd
    SERVICE=$(cat "$ROOT/$ID/share/farshore-agent.service")
else
    MANAGER=none
    if [ -d /etc/init.d ] && [ -x /sbin/init ]; then
        case $(readlink -f /sbin/init) in
        *systemd*) ;;
        *) if command -v update-rc.d >/dev/null 2>&1 || command -v chkconfig >/dev/null 2>&1; then MANAGER=sysv; fi ;;
        esac
    fi
    SERVICE=$(cat "$ROOT/$ID/share/agent-service")
fi
@SERVICE@
