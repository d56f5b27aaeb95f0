# title: One host with as many peers as the guest holds: queue pairs, memory, time to come together
# topologies: pair
# programs: roceway
# seconds: 120
# checks: rc ud

# Each peer is a process of its own on the other device. What it costs for 200 hosts in docs/wire.md
# is reckoned from this.
PEERS=12

a() {
    local peer pids=
    for mode in rc ud; do
        pids=
        peer=1
        while [ $peer -le $PEERS ]; do
            roceway perf server --json --wait block --address "10.10.1.$peer/16" --device \
                "rdma:$DEV,mode=$mode,port=$((4900 + peer)),large=off,peer=$PEER_ADDR" \
                >/dev/null 2>&1 &
            pids="$pids $!"
            peer=$((peer + 1))
        done
        sleep 1
        meet "$mode-up"
        meet "$mode-down"
        kill -TERM $pids
        wait $pids 2>/dev/null
    done
}

b() {
    local peer list started tries
    for mode in rc ud; do
        list=
        peer=1
        while [ $peer -le $PEERS ]; do
            list="$list,peer=$PEER_ADDR:$((4900 + peer))"
            peer=$((peer + 1))
        done
        meet "$mode-up"
        before=$(rdma resource show qp dev "$DEV" | grep -c "type $(echo $mode | tr a-z A-Z)")
        started=$(milliseconds)
        roceway perf server --json --wait block --counters --address 10.10.2.1/16 \
            --device "rdma:$DEV,mode=$mode,large=off$list" >/dev/null 2>mesh.b &
        SERVER=$!
        tries=100
        until grep -q "rdma_peers_up  *$PEERS\$" mesh.b; do
            tries=$((tries - 1))
            [ $tries -gt 0 ] && kill -0 $SERVER || break
            sleep 0.2
            : >mesh.b
            kill -USR1 $SERVER
            sleep 0.1
        done
        took=$(($(milliseconds) - started))
        pairs=$(rdma resource show qp dev "$DEV" | grep -c "type $(echo $mode | tr a-z A-Z)")
        memory=$(grep -o 'rdma_registered_bytes  *[0-9]*' mesh.b | grep -o '[0-9]*$')
        receives=$(grep -o 'rdma_receives_posted  *[0-9]*' mesh.b | grep -o '[0-9]*$')
        detail="$PEERS peers in $took ms, $((pairs - before)) queue pairs, $receives receives,"
        detail="$detail $memory bytes registered"
        if [ $tries -gt 0 ] && kill -0 $SERVER; then
            passed $mode "$detail"
        else
            failed $mode "$detail"
        fi
        stop_serving
        meet "$mode-down"
    done
}
