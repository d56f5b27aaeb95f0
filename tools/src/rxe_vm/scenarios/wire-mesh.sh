# title: One host with as many peers as the guest holds: queue pairs, memory, time to come together
# topologies: pair
# programs: roceway
# seconds: 200
# checks: rc ud

# Each peer is a process of its own on the other device, and there before the host that calls all of
# them. What 200 hosts cost in docs/wire.md is reckoned from this.
PEERS=$(brief 4 16)

# Receives of one buffer each; those of ud have no other.
small() { [ "$1" = ud ] || echo ",large=off"; }

a() {
    local peer pids= tries
    for mode in rc ud; do
        pids=
        peer=1
        while [ $peer -le $PEERS ]; do
            roceway perf server --json --wait block --address "10.10.1.$peer/16" --device \
                "rdma:$DEV,mode=$mode,port=$((4900 + peer)),exchange=tcp$(small $mode),\
accept=$PEER_ADDR/32,peers=1" >"mesh.$peer" &
            pids="$pids $!"
            peer=$((peer + 1))
        done
        tries=300
        until [ "$(cat mesh.[0-9]* | grep -c listening)" = $PEERS ]; do
            tries=$((tries - 1))
            [ $tries -gt 0 ] || return 1
            sleep 0.1
        done
        meet "$mode-up"
        meet "$mode-down"
        kill -TERM $pids
        wait $pids 2>/dev/null
        rm -f mesh.[0-9]*
    done
}

# Queue pairs of this side's device of that kind: the type of rdma's list, RC or UD.
pairs() { rdma resource show qp link "$DEV/1" | grep -c "type $(echo "$1" | tr a-z A-Z) "; }

# told NAME: a counter of the process's own report, which SIGUSR1 asks for.
told() { grep -o "$1  *[0-9]*" mesh.b | grep -o '[0-9]*$' | tail -n 1; }

b() {
    local peer list started tries before detail resident
    for mode in rc ud; do
        list=
        peer=1
        while [ $peer -le $PEERS ]; do
            list="$list,peer=$PEER_ADDR:$((4900 + peer))"
            peer=$((peer + 1))
        done
        meet "$mode-up"
        before=$(pairs $mode)
        : >mesh.b
        : >server.b
        roceway perf server --json --wait block --counters --address 10.10.2.1/16 \
            --device "rdma:$DEV,mode=$mode,exchange=tcp$(small $mode)$list" >server.b 2>>mesh.b &
        SERVER=$!
        until grep -q listening server.b; do sleep 0.02; done
        started=$(milliseconds)
        tries=400
        until [ "$(told rdma_peers_up)" = $PEERS ]; do
            tries=$((tries - 1))
            [ $tries -gt 0 ] && kill -USR1 $SERVER || break
            sleep 0.05
        done
        took=$(($(milliseconds) - started))
        resident=$(sed -n 's/^VmRSS:[^0-9]*//p' /proc/$SERVER/status)
        detail="$PEERS peers within $took ms, $(($(pairs $mode) - before)) queue pairs, \
$(told rdma_receives_posted) receives, $(told rdma_registered_bytes) bytes registered by the wire, \
$resident resident"
        if [ $tries -gt 0 ] && kill -0 $SERVER; then
            passed $mode "$detail"
        else
            failed $mode "$detail; $(tail -n 3 mesh.b | tr '\n' ' ')"
        fi
        stop_serving
        meet "$mode-down"
    done
}
