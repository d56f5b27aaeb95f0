# title: Debian's ibv_devinfo, RC and UD ping-pong
# topologies: pair hosts
# programs: ibv_devinfo ibv_rc_pingpong ibv_ud_pingpong
# seconds: 60
# checks: devinfo rc_events rc_polling ud_events

ROUNDS=300

# Microseconds a round trip; the programs print "300 iters in 0.33 seconds = 1113.81 usec/iter".
round_trip_us() { sed -n 's/.* = \([0-9.]*\) usec\/iter.*/\1/p' "$1"; }

# RTT row of a finished run: TEST MODE WAIT FILE.
report() {
    local us
    us=$(round_trip_us "$4")
    [ -n "$us" ] || return 1
    figure "$1" "$2" "wait=$3" "p50_ns=$(echo "$us" | awk '{ print $1 * 1000 }')"
}

server() {
    local program=$1 port=$2
    shift 2
    within 25 "$program" -d "$DEV" -g "$(gid_index)" -p "$port" -n "$ROUNDS" "$@" &
    until_listening "$port"
    meet "$port"
    wait $!
}

client() {
    local name=$1 mode=$2 waits=$3 port=$4
    shift 4
    meet "$port"
    within 25 "ibv_${mode}_pingpong" -d "$DEV" -g "$(gid_index)" -p "$port" -n "$ROUNDS" "$@" \
        "$PEER_ADDR" >out.$SIDE
    cat out.$SIDE
    check "$name" report "PINGPONG" "$mode" "$waits" out.$SIDE
}

a() {
    server ibv_rc_pingpong 18515 -e
    server ibv_rc_pingpong 18516
    server ibv_ud_pingpong 18517 -e
}

b() {
    ibv_devinfo -d "$DEV" -v >devinfo.b
    cat devinfo.b
    check devinfo grep -q "PORT_ACTIVE" devinfo.b
    client rc_events rc block 18515 -e
    client rc_polling rc spin 18516
    client ud_events ud block 18517 -e
}
