# title: A peer is killed without warning and started again, over rc and ud
# topologies: pair hosts
# programs: roceway
# seconds: 120
# checks: rc_ends rc_again rc_client_again ud_ends ud_again ud_client_again

# The stated times in milliseconds: until connections to a process that is gone have ended, and
# until ten transactions with its successor are done. Both include what it takes to start and end a
# process and a shell under emulation, 1 s and more on a busy machine.
ENDS_MAX=3000
AGAIN_MAX=4000

a() {
    for mode in rc ud; do
        serve $mode || return 1
        meet "$mode-up"
        meet "$mode-moving"
        kill -KILL "$SERVER"
        wait "$SERVER"
        meet "$mode-killed"
        serve $mode || return 1
        meet "$mode-again"
        meet "$mode-down"
        stop_serving
    done
}

# What a client of a killed server sees: its command fails, and in time.
ends() {
    local started status=0
    perf "$1" tcp_rr -l 15 >"ends.$1" &
    until_moving
    meet "$1-moving"
    meet "$1-killed"
    started=$(milliseconds)
    wait $! || status=$?
    ENDED=$(($(milliseconds) - started))
    [ $status = 1 ] && [ "$ENDED" -le $ENDS_MAX ]
}

# The first transactions with a new process.
again() {
    local started status=0
    started=$(milliseconds)
    perf "$1" tcp_rr -l -10 >"again.$1" || status=$?
    TOOK=$(($(milliseconds) - started))
    [ $status = 0 ] && [ "$TOOK" -le $AGAIN_MAX ]
}

# The process of `roceway perf tcp_rr`; in a pair the server is here too.
client_process() {
    for folder in /proc/[0-9]*; do
        if tr '\0' ' ' <"$folder/cmdline" 2>/dev/null | grep -q '^roceway perf tcp_rr'; then
            echo "${folder#/proc/}"
        fi
    done
}

verdict() {
    local name=$1 detail=$3
    if [ "$2" = 0 ]; then passed "$name" "$detail"; else failed "$name" "$detail"; fi
}

b() {
    for mode in rc ud; do
        meet "$mode-up"
        status=0
        ends $mode || status=$?
        verdict "${mode}_ends" $status "the client ended $ENDED ms after the news, at most $ENDS_MAX"
        meet "$mode-again"
        status=0
        again $mode || status=$?
        verdict "${mode}_again" $status "ten transactions with the new process in $TOOK ms"
        # This side's process is killed and succeeded; the server stays.
        perf $mode tcp_rr -l 15 >/dev/null &
        until_moving
        kill -KILL "$(client_process)"
        wait $!
        status=0
        again $mode || status=$?
        verdict "${mode}_client_again" $status "ten transactions after a killed client in $TOOK ms"
        meet "$mode-down"
    done
}
