# title: doctor sees counters that move and a port that is down
# topologies: pair
# programs: roceway ibv_rc_pingpong
# seconds: 90
# checks: counters_move port_down

PORT=18531

# Traffic for longer than doctor watches counters.
traffic() { within 20 ibv_rc_pingpong -d "$DEV" -g "$(gid_index)" -p "$PORT" -n 2000 -e "$@"; }

a() {
    traffic &
    until_listening "$PORT"
    meet serving
    within 20 roceway doctor --json >moved.a 2>/dev/null
    check counters_move grep -q '"name": "rcvd_pkts"' moved.a
    wait
    meet down
    within 20 roceway doctor >down.a 2>/dev/null
    cat down.a
    check port_down grep -q "sudo ip link set dev $PEER_IFACE up" down.a
    meet finished
}

b() {
    meet serving
    traffic "$PEER_ADDR" >/dev/null
    ip link set dev "$IFACE" down
    meet down
    meet finished
    ip link set dev "$IFACE" up
}
