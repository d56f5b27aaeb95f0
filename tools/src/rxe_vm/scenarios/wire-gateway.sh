# title: A gateway on each side: the kernel's TCP and Roceway reach each other over rc and ud
# topologies: pair hosts
# programs: roceway iperf3
# seconds: 150
# checks: rc_tcp_rr rc_tcp_stream rc_kernel_rr rc_iperf3 rc_ended ud_tcp_rr ud_tcp_stream ud_kernel_rr ud_ended

# Behind each gateway's TAP is a network namespace with the kernel's TCP in it. The gateways call
# each other; the Roceway process of each side calls the other side's gateway.
PORT=4801
# Two devices of one guest are one host to the connection manager, which refuses after a while.
EXCHANGE=auto
[ "$TOPOLOGY" = hosts ] || EXCHANGE=tcp

# gateway MODE: runs one; its process is then $GATEWAY.
gateway() {
    local tries=200
    rm -f "gateway.$SIDE" kernel.a server.a
    NS=ns$SIDE TAP=gw$SIDE HOST=10.10.0.11 PEER_HOST=10.10.0.12
    [ "$SIDE" = a ] || HOST=10.10.0.12 PEER_HOST=10.10.0.11
    roceway gateway "$(wire_device "$1"),port=$PORT,accept=10.9.0.0/24" \
        "tap:$TAP" --json --counters >"gateway.$SIDE" &
    GATEWAY=$!
    until grep -q running "gateway.$SIDE"; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] && kill -0 "$GATEWAY" || return 1
        sleep 0.05
    done
    ip netns add "$NS" && ip link set "$TAP" netns "$NS" &&
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
        meet "$mode-down"
        kill -TERM $KERNEL
        stop_serving
        close_gateway || return 1
    done
}

# through NAME COMMAND...: a test whose rows are told. On a busy machine a first contact, through
# two processes that just started, may take longer than a question for an address lives.
through() {
    local name=$1
    shift
    if within 25 "$@" --json >"$name.b" || within 25 "$@" --json >"$name.b"; then
        rows <"$name.b"
        passed "$name"
    else
        failed "$name" "$*"
    fi
}

b() {
    for mode in rc ud; do
        gateway $mode || return 1
        meet "$mode-up"
        for test in tcp_rr tcp_stream; do
            through ${mode}_$test roceway perf $test $PEER_HOST --wait block -l 1 \
                --device "$(wire_device $mode)" --address "$WIRE/24"
        done
        through ${mode}_kernel_rr $INSIDE$SIDE roceway perf tcp_rr "$PEER_WIRE" --stack kernel \
            --wait block -l 1
        if [ $mode = rc ]; then
            within 25 $INSIDE$SIDE iperf3 -c $PEER_HOST -t 2 >iperf3.b
            cat iperf3.b
            detail=$(grep receiver iperf3.b)
            check rc_iperf3 [ -n "$detail" ] && say "iperf3: $detail"
        fi
        meet "$mode-down"
        check ${mode}_ended close_gateway
    done
}
