# title: The first connection to a new peer, and to a known one, over rc and ud
# topologies: hosts
# programs: roceway
# seconds: 200
# brief: no
# checks: rc ud

# New processes at this end, so that the peer is new each time; in each 20 connections follow.
RUNS=5

a() {
    for mode in rc ud; do
        roceway verify server "rdma:$DEV" --listen "$ADDR" >server.a 2>&1 &
        SERVER=$!
        until_listening 4797
        meet "$mode-up"
        meet "$mode-down"
        stop_serving
    done
}

b() {
    local run
    for mode in rc ud; do
        meet "$mode-up"
        rm -f told
        run=0
        while [ $run -lt $RUNS ]; do
            within 60 roceway verify "rdma:$DEV,mode=$mode" --peer "$PEER_ADDR" --report v.b \
                >/dev/null || true
            sed -n 's/^  passed     wire .*connected to a new peer \(.*\) after.* one in \([^ ]*\) .*/\1 \2/p' \
                v.b >>told
            run=$((run + 1))
        done
        if [ "$(wc -l <told)" = $RUNS ]; then
            passed $mode "new and known: $(tr '\n' ';' <told)"
        else
            failed $mode "$(cat told)"
        fi
        meet "$mode-down"
    done
}
