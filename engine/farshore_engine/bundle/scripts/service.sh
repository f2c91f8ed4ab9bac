# Installs the service and starts the agent when needed. Variables: ROOT, ID, MANAGER (systemd, sysv, none), SERVICE (text
# of the unit or the init script), RESTART (yes, no). Prints `started` or `running`; exit code 70: it does not stay up.
# shellcheck shell=sh disable=SC2154
set -eu
cd "$ROOT"
name=farshore-agent
case $MANAGER in
systemd) file=/etc/systemd/system/$name.service mode=644 ;;
sysv) file=/etc/init.d/$name mode=755 ;;
*) file=/etc/farshore/agent-service mode=755 ;;
esac

alive() {
    if [ "$MANAGER" = systemd ]; then
        [ "$(systemctl show -p SubState "$name")" = SubState=running ]
    else
        "$file" status >/dev/null 2>&1
    fi
}
identity() {
    if [ "$MANAGER" = systemd ]; then systemctl show -p MainPID "$name"; else cat /run/$name.pid; fi
}

if [ ! -f "$file" ] || [ "$(cat "$file")" != "$SERVICE" ]; then
    RESTART=yes
    if [ "$MANAGER" != systemd ] && [ -x "$file" ]; then "$file" stop || true; fi
    printf '%s\n' "$SERVICE" >"$file.new"
    chmod "$mode" "$file.new"
    mv -f "$file.new" "$file"
fi
if [ "$(readlink current || true)" != "$ID" ]; then
    if [ -L current ]; then
        readlink current >.previous.new
        mv -f .previous.new .previous
    fi
    rm -f .current.new
    ln -s "$ID" .current.new
    mv -Tf .current.new current 2>/dev/null || { rm -f current && mv -f .current.new current; }
    RESTART=yes
fi
if [ "$RESTART" = no ] && alive; then
    echo running
    exit 0
fi
case $MANAGER in
systemd)
    systemctl daemon-reload
    systemctl enable "$name" >/dev/null 2>&1
    systemctl restart "$name"
    ;;
sysv)
    if command -v update-rc.d >/dev/null 2>&1; then
        update-rc.d "$name" defaults >/dev/null
    else
        chkconfig --add "$name"
        chkconfig "$name" on
    fi
    "$file" restart
    ;;
*) "$file" restart ;;
esac

# It must be up, and still be the same process two seconds later, and when it says that it could use its configuration:
# on a busy machine it takes longer until one that cannot has ended.
tries=0
until alive; do
    tries=$((tries + 1))
    if [ "$tries" -ge 15 ]; then break; fi
    sleep 1
done
first=$(identity || true)
sleep 2
tries=0
until [ "$(cat /run/farshore/ready 2>/dev/null)" = "${first#MainPID=}" ] || [ "$tries" -ge 60 ]; do
    if ! alive || [ "$(identity || true)" != "$first" ]; then break; fi
    tries=$((tries + 1))
    sleep 1
done
if ! alive || [ "$(identity || true)" != "$first" ]; then
    if [ "$MANAGER" = systemd ]; then
        journalctl -u "$name" -n 15 --no-pager -o cat >&2 || systemctl status --no-pager "$name" >&2 || true
    else
        tail -n 15 /var/log/$name.log >&2 || true
    fi
    exit 70
fi
echo started
