# Stops the agent and removes everything that was installed; prints what is still there. Variables: ROOT.
# shellcheck shell=sh disable=SC2154
name=farshore-agent
unit=/etc/systemd/system/$name.service
if [ -e "$unit" ]; then
    if [ -d /run/systemd/system ]; then systemctl disable --now "$name" >/dev/null 2>&1; fi
    rm -f "$unit" "$unit.new"
    if [ -d /run/systemd/system ]; then
        systemctl daemon-reload
        systemctl reset-failed "$name" >/dev/null 2>&1
    fi
fi
for script in /etc/init.d/$name /etc/farshore/agent-service; do
    if [ -x "$script" ]; then "$script" stop >/dev/null 2>&1; fi
    rm -f "$script" "$script.new"
done
if command -v update-rc.d >/dev/null 2>&1; then
    update-rc.d "$name" remove >/dev/null 2>&1
elif command -v chkconfig >/dev/null 2>&1; then
    chkconfig --del "$name" >/dev/null 2>&1
fi

# One program looks at all of them: two for each process took a busy machine minutes.
processes() { grep -l "^$ROOT/" /proc/[0-9]*/cmdline 2>/dev/null | sed 's,^/proc/,,; s,/cmdline$,,'; }
tries=0
while [ -n "$(processes)" ] && [ $tries -lt 5 ]; do
    tries=$((tries + 1))
    if [ $tries -eq 4 ]; then for process in $(processes); do kill -KILL "$process"; done; fi
    sleep 1
done

# What an agent that was killed may have left in the kernel: frozen file systems, and a trace instance (the next user of
# tracing, which `checks` is, removes it).
current=$ROOT/current
if [ -x "$current/lib/ld-linux-x86-64.so.2" ]; then
    for command in thaw checks; do
        "$current/lib/ld-linux-x86-64.so.2" --library-path "$current/lib" "$current/bin/python3" -I \
            -m farshore_engine.agent.main $command >/dev/null 2>&1
    done
fi

rm -rf /etc/farshore/agent /etc/farshore/.agent.new /var/lib/farshore /run/farshore "$ROOT"
rm -f /run/$name.pid /run/$name.supervisor.pid /var/log/$name.log /var/log/$name.log.1
# The scripts in recovery.d and hooks.d are the user's, so they stay, and so do their directories.
rmdir /etc/farshore/recovery.d /etc/farshore/hooks.d /etc/farshore 2>/dev/null

for path in "$unit" /etc/init.d/$name /etc/farshore/agent-service /etc/farshore/agent /var/lib/farshore "$ROOT"; do
    if [ -e "$path" ]; then echo "$path"; fi
done
for process in $(processes); do echo "process $process"; done
exit 0
