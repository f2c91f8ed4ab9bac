#!/bin/sh
### BEGIN INIT INFO
# Provides:          farshore-agent
# Required-Start:    $local_fs $network
# Required-Stop:     $local_fs $network
# Default-Start:     2 3 4 5
# Default-Stop:      0 1 6
# Short-Description: Farshore agent: replicates this machine
### END INIT INFO
# chkconfig: 2345 90 10
# description: Farshore agent, replicates this machine
# Starts the agent where there is no systemd, and again whenever it ends.
export @ENVIRONMENT@
agent='@AGENT@'
run=/run/farshore-agent
log=/var/log/farshore-agent.log

alive() { [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null && grep -q farshore "/proc/$(cat "$1")/cmdline"; }

supervise() {
    stopping=no
    child=
    trap 'stopping=yes; if [ -n "$child" ]; then kill -TERM "$child" 2>/dev/null; fi' TERM INT HUP
    echo -1000 2>/dev/null >/proc/self/oom_score_adj
    while [ $stopping = no ]; do
        if [ -f $log ] && [ "$(wc -c <$log)" -gt 5000000 ]; then mv -f $log $log.1; fi
        exec 3>>$log  # now: to open a file for writing on a frozen file system would wait for the thaw
        # shellcheck disable=SC2086
        $agent run --config /etc/farshore/agent/config.json </dev/null >&3 2>&1 &
        child=$!
        echo $child >$run.pid
        while kill -0 $child 2>/dev/null; do wait $child; done
        child=
        # shellcheck disable=SC2086
        $agent thaw </dev/null >&3 2>&1
        rm -f $run.pid
        if [ $stopping = no ]; then sleep 5; fi
    done
    rm -f $run.supervisor.pid
}

start() {
    if alive $run.supervisor.pid; then return 0; fi
    touch $log
    chmod 600 $log
    if command -v setsid >/dev/null 2>&1; then
        setsid "$0" supervise </dev/null >/dev/null 2>&1 &
    else
        nohup "$0" supervise </dev/null >/dev/null 2>&1 &
    fi
    tries=0
    until alive $run.pid || [ $tries -ge 50 ]; do
        tries=$((tries + 1))
        sleep 0.1 2>/dev/null || sleep 1
    done
}

stop() {
    if ! alive $run.supervisor.pid; then
        rm -f $run.supervisor.pid
        if alive $run.pid; then kill -TERM "$(cat $run.pid)"; fi
        return 0
    fi
    supervisor=$(cat $run.supervisor.pid)
    kill -TERM "$supervisor"
    tries=0
    while kill -0 "$supervisor" 2>/dev/null; do
        tries=$((tries + 1))
        if [ $tries -ge 300 ]; then
            if alive $run.pid; then kill -KILL "$(cat $run.pid)"; fi
            sleep 1
            kill -KILL "$supervisor" 2>/dev/null
            break
        fi
        sleep 0.1 2>/dev/null || sleep 1
    done
    rm -f $run.pid $run.supervisor.pid
}

case $1 in
start) start ;;
stop) stop ;;
restart | force-reload)
    stop
    start
    ;;
status) if alive $run.pid; then echo running; else echo stopped && exit 3; fi ;;
supervise)
    echo $$ >$run.supervisor.pid
    supervise
    ;;
*)
    echo "usage: $0 start|stop|restart|status" >&2
    exit 2
    ;;
esac
