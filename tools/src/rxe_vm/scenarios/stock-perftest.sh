# title: perftest's ib_send_lat and ib_send_bw, the bare verbs figures
# topologies: pair hosts
# programs: ib_send_lat ib_send_bw
# seconds: 90
# checks: rc_lat rc_bw ud_lat ud_bw

# Message sizes: a small request, and what one work request of a stream carries (UD: one packet).
LAT="-s 64 -n 200"
BW_RC="-s 65536 -n 300"
BW_UD="-s 4096 -n 1000"

# Either end of one test: PROGRAM PORT OPTIONS...; the client has PEER set. Both sleep on events:
# two ends that poll would starve the driver's own work on these few processors.
run() {
    local program=$1 port=$2
    shift 2
    within 20 "$program" -d "$DEV" -x "$(gid_index)" -p "$port" -F -e "$@" $PEER
}

a() {
    PEER=
    while read -r program port options; do
        run $program $port $options &
        until_listening "$port"
        meet "$port"
        wait $!
    done <<END
ib_send_lat 18601 -c RC $LAT
ib_send_lat 18602 -c UD $LAT
ib_send_bw 18603 -c RC $BW_RC
ib_send_bw 18604 -c UD $BW_UD
END
}

# Columns of ib_send_lat: bytes iterations min max typical average stdev p99 p99.9, in us and one
# way: the round trip is twice that.
latency_row() {
    awk -v n=200 '$2 == n && NF >= 9 { print "p50_ns=" $5 * 2000, "p99_ns=" $8 * 2000; found = 1 }
        END { exit !found }' "$1"
}

# Columns of ib_send_bw: bytes iterations peak average MB/s (2^20) messages/s.
stream_row() {
    awk -v bytes="$2" '$1 == bytes && NF >= 5 { print "gbit_per_s=" $4 * 8.388608e-3; found = 1 }
        END { exit !found }' "$1"
}

# reported NAME TEST MODE NAME=NUMBER...: a figure, if the program has one. It divides by the
# processor's frequency, which it takes against the clock at its start, and prints inf where the
# two did not go together, as under an emulator that was held up.
reported() {
    local name=$1 test=$2 mode=$3
    shift 3
    case "$*" in
    *inf* | *nan*) skipped "$name" "the program's own clock failed it: $*" ;;
    *) check "$name" figure "$test" "$mode" wait=block "$@" ;;
    esac
}

client() {
    local name=$1 port=$2 program=$3
    shift 3
    meet "$port"
    run "$program" "$port" "$@" >"$name.$SIDE"
    cat "$name.$SIDE"
}

b() {
    PEER=$PEER_ADDR
    client rc_lat 18601 ib_send_lat -c RC $LAT
    numbers=$(latency_row rc_lat.b) && reported rc_lat SEND_LAT rc $numbers
    client ud_lat 18602 ib_send_lat -c UD $LAT
    numbers=$(latency_row ud_lat.b) && reported ud_lat SEND_LAT ud $numbers
    client rc_bw 18603 ib_send_bw -c RC $BW_RC
    numbers=$(stream_row rc_bw.b 65536) && reported rc_bw SEND_BW rc $numbers
    client ud_bw 18604 ib_send_bw -c UD $BW_UD
    numbers=$(stream_row ud_bw.b 4096) && reported ud_bw SEND_BW ud $numbers
}
