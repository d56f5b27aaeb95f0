# title: A gateway on each side: the kernel's TCP and Roceway reach each other over rc and ud
# topologies: pair hosts
# programs: roceway iperf3
# seconds: 200
# checks: rc_tcp_rr rc_tcp_stream rc_kernel_rr rc_iperf3 rc_killed rc_ended ud_tcp_rr ud_tcp_stream ud_kernel_rr ud_killed ud_ended

# Behind each gateway's TAP is a network namespace with the kernel's TCP in it. The gateways call
# each other; the Roceway process of each side calls the other side's gateway.
PORT=4801
# Two devices of one guest are one host to the connection manager, which refuses after a while.
EXCHANGE=auto
[ "$TOPOLOGY" = hosts ] || EXCHANGE=tcp

# How long hosts behind a gateway that was killed may be out of reach once its successor has been
# started, in milliseconds: process, address resolution and ten transactions under emulation.
REACHED_MAX=8000

# gateway MODE: makes the namespace behind it, and runs one.
gateway() {
    rm -f kernel.a server.a
    NS=ns$SIDE TAP=gw$SIDE HOST=10.10.0.11 PEER_HOST=10.10.0.12
    [ "$SIDE" = a ] || HOST=10.10.0.12 PEER_HOST=10.10.0.11
    ip netns add "$NS" && start_gateway "$1"
}

# start_gateway MODE: its process is then $GATEWAY. Its interface goes with the process, and comes
# again with the same hardware address, as an administrator would have it.
start_gateway() {
    local tries=200
    rm -f "gateway.$SIDE"
    roceway gateway "$(wire_device "$1"),port=$PORT,accept=10.9.0.0/24" \
        "tap:$TAP" --json --counters >"gateway.$SIDE" &
    GATEWAY=$!
    until grep -q running "gateway.$SIDE"; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] && kill -0 "$GATEWAY" || return 1
        sleep 0.05
    done
    ip link set "$TAP" address "02:00:00:00:09:${HOST#10.10.0.}" netns "$NS" &&
        inside ip addr add "$HOST/24" dev "$TAP" && inside ip link set "$TAP" up
}

# A command in the namespace behind this side's gateway.
INSIDE="/usr/bin/ip netns exec ns"
inside() { $INSIDE$SIDE "$@"; }

close_gateway() {
    kill -TERM "$GATEWAY"
    wait "$GATEWAY" || return 1
    cat "gateway.$SIDE"
    ip netns del "$NS"
}

wire_device() { echo "rdma:$DEV,mode=$1,peer=$PEER_ADDR:$PORT,exchange=$EXCHANGE"; }

a() {
    for mode in rc ud; do
        gateway $mode || return 1
        inside roceway perf server --stack kernel --wait block --json >kernel.a &
        KERNEL=$!
        inside iperf3 -s -1 >iperf3.a &
        roceway perf server --json --wait block --device "$(wire_device $mode)" \
            --address "$WIRE/24" >server.a &
        SERVER=$!
        until cat server.a kernel.a 2>/dev/null | grep -c listening | grep -q 2; do sleep 0.05; done
        meet "$mode-up"
        meet "$mode-kill"
        kill -KILL "$GATEWAY"
        wait "$GATEWAY"
        start_gateway $mode || return 1
        meet "$mode-again"
        meet "$mode-down"
        kill -TERM $KERNEL
        stop_serving
        close_gateway || return 1
    done
}

# through NAME COMMAND...: a test whose rows are told, at the first try.
through() {
    local name=$1
    shift
    if within 25 "$@" --json >"$name.b"; then
        rows <"$name.b"
        passed "$name"
    else
        failed "$name" "$*"
    fi
}

# The other side's gateway was killed and has a successor: the kernel's TCP behind it is reached by
# Roceway, and by the kernel behind this side's gateway.
reached() {
    local started
    started=$(milliseconds)
    within 25 roceway perf tcp_rr $PEER_HOST --json --wait block -l -10 \
        --device "$(wire_device "$1")" --address "$WIRE/24" >again.b &&
        within 25 $INSIDE$SIDE roceway perf tcp_rr $PEER_HOST --json --stack kernel \
            --wait block -l -10 >again.b || return 1
    TOOK=$(($(milliseconds) - started))
    [ $TOOK -le $REACHED_MAX ]
}

b() {
    for mode in rc ud; do
        gateway $mode || return 1
        meet "$mode-up"
        for test in tcp_rr tcp_stream; do
            through ${mode}_$test roceway perf $test $PEER_HOST --wait block -l $(brief 0.5 1) \
                --device "$(wire_device $mode)" --address "$WIRE/24"
        done
        through ${mode}_kernel_rr $INSIDE$SIDE roceway perf tcp_rr "$PEER_WIRE" --stack kernel \
            --wait block -l $(brief 0.5 1)
        if [ $mode = rc ]; then
            within 25 $INSIDE$SIDE iperf3 -c $PEER_HOST -t $(brief 1 2) >iperf3.b
            cat iperf3.b
            detail=$(grep receiver iperf3.b)
            check rc_iperf3 [ -n "$detail" ] && say "iperf3: $detail"
        fi
        meet "$mode-kill"
        meet "$mode-again"
        TOOK=-1
        if reached $mode; then
            passed ${mode}_killed "hosts behind it are reached within $TOOK ms"
        else
            failed ${mode}_killed "not reached within $REACHED_MAX ms ($TOOK)"
        fi
        meet "$mode-down"
        check ${mode}_ended close_gateway
    done
}
