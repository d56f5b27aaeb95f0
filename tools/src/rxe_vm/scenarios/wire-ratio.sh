# title: TCP_RR over rc and ud beside a bare verbs ping-pong that sleeps in the same manner
# topologies: pair
# programs: roceway verbs-pingpong
# seconds: 290
# brief: no
# checks: rc ud rc_one_post ud_one_post

# Interleaved blocks; the ratio of medians of the blocks' medians counts. A transaction of one byte
# is a message of 24 + 12 + 14 + 52 + 1 bytes: headers of the wire, virtio-net, Ethernet, IPv4, TCP.
# Besides, the ping-pong uses verbs as Roceway does (wire-instructions has the steps): what it then
# takes more is the price of queues and sleep, and what is left is the price of stack and loop.
BLOCKS=20
ROUNDS=100
SIZE=103
# What is wanted is 1.15; this bound only notices when something is badly wrong.
RATIO_MAX=4
# Sleep at once, as the ping-pong does.
SLEEP="--set turn.spin=0us..0us"

# options WAY MODE: those of verbs-pingpong, bare or in Roceway's manner.
options() {
    echo "--transport $2 --size $SIZE --count $ROUNDS"
    [ "$1" = bare ] || echo "--inline --like sleep"
    [ "$1$2" != likerc ] || echo "--srq"
}

a() {
    for mode in rc ud; do
        roceway perf server --json --wait block $SLEEP --device "$(device $mode)" \
            --address "$WIRE/24" >server.a &
        SERVER=$!
        block=0
        while [ $block -lt $BLOCKS ]; do
            for way in bare like; do
                within 20 verbs-pingpong --device "$DEV" --listen "$ADDR:7301" \
                    $(options $way $mode) >bare.a &
                until_listening 7301
                meet "$mode-$block-$way"
                wait $! || return 1
                meet "$mode-$block-$way-done"
            done
            meet "$mode-$block-done"
            block=$((block + 1))
        done
        meet "$mode-counted"
        stop_serving
    done
}

# Calls of post_send, and turns that made one, over a whole test: connection and its end included.
one_post() {
    local posts turns
    perf "$1" tcp_rr -l -$ROUNDS $SLEEP --counters >counted.b || return 1
    posts=$(counter rdma_doorbells counted.b)
    turns=$(counter rdma_turns_that_sent counted.b)
    DETAIL="$posts calls of post_send in $turns turns that sent, $(counter busy_turns counted.b) \
busy turns, $(counter sleeps counted.b) sleeps, for $ROUNDS transactions"
    # Updates of credit may leave while a turn receives.
    [ "$turns" -ge $ROUNDS ] && [ $((posts - turns)) -le $((ROUNDS / 20)) ]
}

b() {
    for mode in rc ud; do
        rm -f bare like ours
        block=0
        while [ $block -lt $BLOCKS ]; do
            for way in bare like; do
                meet "$mode-$block-$way"
                within 20 verbs-pingpong --device "$DEV" --connect "$PEER_ADDR:7301" \
                    $(options $way $mode) | tr ' ' '\n' | sed -n 's/^p50_ns=//p' >>$way
                meet "$mode-$block-$way-done"
            done
            perf $mode tcp_rr -l -$ROUNDS $SLEEP >block.b || return 1
            value p50_ns block.b >>ours
            meet "$mode-$block-done"
            block=$((block + 1))
        done
        figure PINGPONG $mode wait=block "p50_ns=$(median bare)"
        STACK=roceway figure TCP_RR $mode wait=block "p50_ns=$(median ours)"
        ratio=$(quotient "$(median ours)" "$(median bare)")
        detail="$ratio: TCP_RR $(spread ours) ns, bare $(spread bare) ns, $(wc -l <bare) blocks; the \
same verbs without stack and loop $(spread like) ns, $(quotient "$(median like)" "$(median bare)")"
        if within_bounds "$ratio" 0.01 $RATIO_MAX; then
            passed $mode "$detail"
        else
            failed $mode "$detail"
        fi
        if one_post $mode; then
            passed ${mode}_one_post "$DETAIL"
        else
            failed ${mode}_one_post "$DETAIL"
        fi
        meet "$mode-counted"
    done
}
