# title: The link goes down and comes back under a TCP connection, over rc and ud
# topologies: pair hosts
# programs: roceway
# seconds: 90
# checks: rc_lives rc_moves ud_lives ud_moves

# How long the link is away, and how soon after its return transactions move, in milliseconds.
AWAY=1500
MOVES_MAX=2000

link_down() { ip link set "$IFACE" down; }
link_up() {
    if [ "$TOPOLOGY" = pair ]; then links_up; else ip link set "$IFACE" up; fi
}

a() {
    for mode in rc ud; do
        serve $mode || return 1
        meet "$mode-up"
        until_moving
        link_down
        sleep "$((AWAY / 1000)).$((AWAY % 1000))"
        link_up
        meet "$mode-down"
        stop_serving
    done
}

# The longest round trip covers the time away and the time until the connection moved again.
b() {
    for mode in rc ud; do
        meet "$mode-up"
        status=0
        perf $mode tcp_rr -l 8 >"link.$mode" || status=$?
        check "${mode}_lives" [ $status = 0 ]
        [ $status != 0 ] || rows <"link.$mode"
        longest=$(value max_ns "link.$mode" | awk '{ print int($1 / 1000000) }')
        moved=$((${longest:-99999} - AWAY))
        if [ "$moved" -ge 0 ] && [ "$moved" -le $MOVES_MAX ]; then
            passed "${mode}_moves" "$moved ms after the link's return"
        else
            failed "${mode}_moves" "longest round trip $longest ms, the link was away $AWAY ms"
        fi
        meet "$mode-down"
    done
}
