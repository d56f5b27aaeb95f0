# title: Hosts find each other by the connection manager (rc), SIDR (ud), or plain TCP
# topologies: hosts pair
# programs: roceway
# seconds: 120
# checks: rc_cm rc_tcp rc_auto rc_moved ud_cm ud_tcp ud_auto ud_moved

# One guest with two devices is one host to the connection manager, which then refuses (28): there
# the plain exchange is what is left. `auto` finds that out by itself.

# The longest round trip across a move, in milliseconds: the time without an address, the call from
# the new one, and a segment that is sent again.
MOVES_MAX=4000
SECONDS_MOVING=$(brief 4 8)

a() {
    for mode in rc ud; do
        for way in cm tcp auto; do
            [ "$TOPOLOGY-$way" != pair-cm ] || continue
            serve $mode exchange=$way || return 1
            meet "$mode-$way-up"
            meet "$mode-$way-down"
            stop_serving
        done
        # An address that goes away, and another one.
        serve $mode "accept=10.9.0.0/24,peers=3" || return 1
        meet "$mode-moving"
        meet "$mode-moved"
        stop_serving
    done
}

# found NAME MODE WAY: ten transactions, and who brought both together.
found() {
    local name=$1 mode=$2 way=$3 by
    if ! within 25 roceway perf tcp_rr "$PEER_WIRE" --json --wait block --counters -l -10 \
        --device "$(device "$mode" exchange="$way")" --address "$WIRE/24" >found.b; then
        failed "$name" "exchange=$way"
        return
    fi
    by=$(grep -o 'rdma_call[a-z]*_by_[a-z]*' found.b | tr '\n' ' ')
    case $way-$by in
    cm-*tcp* | tcp-*manager* | *-) failed "$name" "exchange=$way: $by" ;;
    *) passed "$name" "$by" ;;
    esac
}

b() {
    for mode in rc ud; do
        for way in cm tcp auto; do
            if [ "$TOPOLOGY-$way" = pair-cm ]; then
                skipped ${mode}_cm "two devices of one guest are one host to it"
                continue
            fi
            meet "$mode-$way-up"
            found ${mode}_$way $mode $way
            meet "$mode-$way-down"
        done
        meet "$mode-moving"
        moves $mode
        meet "$mode-moved"
    done
}

# This side gets another address in the middle of a test, and loses the old one. The server takes
# calls from both.
moves() {
    if [ "$TOPOLOGY" = pair ]; then
        skipped ${1}_moved "the routes of one guest with two devices are by address"
        return
    fi
    within 25 roceway perf tcp_rr "$PEER_WIRE" --json --wait block --counters -l $SECONDS_MOVING \
        --device "$(device "$1")" --address "$WIRE/24" >moves.b &
    local enough=$(($(packets) + 60)) tries=200
    until [ "$(packets)" -ge $enough ] || [ $tries = 0 ]; do
        tries=$((tries - 1))
        sleep 0.05
    done
    ip addr add 10.9.0.77/24 dev "$IFACE"
    sleep 0.5
    ip addr del "$ADDR/24" dev "$IFACE"
    ip addr add 10.9.0.77/24 dev "$IFACE" 2>/dev/null
    status=0
    wait $! || status=$?
    moved=$(value rdma_gid_moves moves.b)
    longest=$(value max_ns moves.b | awk '{ print int($1 / 1e6) }')
    ip addr add "$ADDR/24" dev "$IFACE"
    ip addr del 10.9.0.77/24 dev "$IFACE"
    ip addr add "$ADDR/24" dev "$IFACE" 2>/dev/null
    detail="$moved moves, longest round trip $longest ms"
    if [ $status = 0 ] && [ "${moved:-0}" -ge 1 ] && [ "$longest" -le $MOVES_MAX ]; then
        passed ${1}_moved "$detail"
    else
        failed ${1}_moved "status $status, $detail"
    fi
}
