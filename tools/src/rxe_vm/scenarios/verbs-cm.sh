# title: Roceway's own bindings find the other host through librdmacm, over RC and UD (SIDR)
# topologies: hosts
# programs: verbs-pingpong
# seconds: 40
# checks: rc ud

# Two devices of one network namespace are out of its reach: it sees one host that talks to itself.

a() {
    for mode in rc ud; do
        within 15 verbs-pingpong --device "$DEV" --listen "$ADDR:7201" --transport $mode \
            --count 100 --by cm >listen.$mode &
        # Its listener is no socket of the kernel's TCP; it has said hello by then.
        until grep -q hello listen.$mode; do sleep 0.1; done
        sleep 0.5
        meet $mode
        wait $! || return 1
    done
}

b() {
    local tries=20
    # Guests that have just booted may need a moment: this is the first that goes over their wire.
    until ping -c 1 -W 1 "$PEER_ADDR" >/dev/null || [ $tries = 0 ]; do tries=$((tries - 1)); done
    for mode in rc ud; do
        meet $mode
        check $mode within 15 verbs-pingpong --device "$DEV" --connect "$PEER_ADDR:7201" \
            --transport $mode --count 100 --by cm
    done
}
