# title: verify tries what soft-RoCE claims, and sets of offloads, on one host and with another
# topologies: pair hosts
# programs: roceway
# seconds: 300
# checks: alone rc_offloads ud_offloads together report no_raw

# On a busy machine acknowledgements are late, the driver repeats for nothing, and in 2 of 16 runs a
# queue pair ended meanwhile (docs/rdma-figures.md). A longer timer repeats a fifth as often.
PATIENT=timeout=14,retry=2

a() {
    roceway verify server "rdma:$DEV,$PATIENT" --listen "$ADDR" --once >server.a 2>&1 &
    until_listening 4797
    meet up
    wait $!
    cat server.a
}

# told FILE: the verdicts of a report that are not plain passes, for the log.
told() { grep -E '^  (FAILED|not tried)' "$1" | tr '\n' ';'; }

# How many checks of a report passed.
passes() { grep -c '^  passed' "$1"; }

# offloads MODE LEAST: the sets that were tried, by name, by IPv4 and (not over ud, whose MTU is less
# than 1280) IPv6, each with every byte compared; none failed, and there were so many.
offloads() {
    local line count
    grep '^  [a-zA-Z ]* offloads ' "alone.$1" | while read -r line; do say "$1: $line"; done
    count=$(grep -c '^  passed  *offloads [a-z]' "alone.$1")
    if grep -q '^  FAILED  *offloads' "alone.$1"; then
        failed "${1}_offloads" "$(told "alone.$1")"
    elif [ "$count" -lt "$2" ]; then
        failed "${1}_offloads" "$count sets of at least $2"
    else
        passed "${1}_offloads" "$count trials of sets in which each pair of settings occurs"
    fi
}

b() {
    local status=0
    # Both ends over one port.
    within 130 roceway verify "rdma:$DEV,mode=rc,$PATIENT" --offloads --report alone.rc >/dev/null ||
        status=1
    within 130 roceway verify "rdma:$DEV,mode=ud" --offloads --report alone.ud >/dev/null ||
        status=1
    cat alone.rc alone.ud
    if [ $status = 0 ]; then
        passed alone "$(passes alone.rc) checks of rc, $(passes alone.ud) of ud"
    else
        failed alone "$(told alone.rc) $(told alone.ud)"
    fi
    offloads rc 20
    offloads ud 3
    meet up
    status=0
    within 200 roceway verify "rdma:$DEV,$PATIENT" --peer "$PEER_ADDR" --report both >/dev/null || status=1
    cat both
    if [ $status = 0 ]; then
        passed together "$(passes both) checks; $(told both)"
    else
        failed together "$(told both)"
    fi
    check report grep -q '"failed":0' both
    # rxe has no RAW_PACKET queue pairs, which is nothing that fails.
    check no_raw grep -q 'not tried  queue_pairs .*ibv_create_qp' both
}
