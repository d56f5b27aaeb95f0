# title: TCP_STREAM over rc beside a bare RC send stream of equal messages
# topologies: pair
# programs: roceway verbs-pingpong
# seconds: 200
# brief: no
# checks: rc

BLOCKS=10
# Bytes of a block; the first one says how long our messages are, and the bare ones are as long.
BYTES=33554432
# What is wanted is 0.85; this bound only notices when something is badly wrong.
RATIO_MIN=0.2
SLEEP="--set turn.spin=0us..0us"

a() {
    roceway perf server --json --wait block $SLEEP --device "$(device rc)" \
        --address "$WIRE/24" >server.a &
    SERVER=$!
    meet up
    block=0
    while [ $block -lt $BLOCKS ]; do
        meet "$block-size"
        size=$(cat /tmp/stream.size)
        within 30 verbs-pingpong --device "$DEV" --listen "$ADDR:7302" --transport rc --srq \
            --test stream --size "$size" --count $((BYTES / size)) >bare.a &
        until_listening 7302
        meet "$block"
        wait $! || return 1
        meet "$block-done"
        block=$((block + 1))
    done
    stop_serving
}

b() {
    local sent count detail
    meet up
    rm -f bare ours
    block=0
    while [ $block -lt $BLOCKS ]; do
        perf rc tcp_stream -l -$BYTES $SLEEP --counters >block.b || return 1
        value gbit_per_s block.b >>ours
        sent=$(counter wire_tx_bytes block.b)
        count=$(counter wire_tx_data block.b)
        echo $((sent / count)) >/tmp/stream.size
        meet "$block-size"
        meet "$block"
        within 30 verbs-pingpong --device "$DEV" --connect "$PEER_ADDR:7302" --transport rc --srq \
            --test stream --size "$(cat /tmp/stream.size)" \
            --count $((BYTES / $(cat /tmp/stream.size))) | tr ' ' '\n' |
            awk -F= '/^bytes_per_second=/ { print $2 * 8e-9 }' >>bare
        meet "$block-done"
        block=$((block + 1))
    done
    figure STREAM rc wait=block "gbit_per_s=$(median bare)" "message_bytes=$(cat /tmp/stream.size)"
    STACK=roceway figure TCP_STREAM rc wait=block "gbit_per_s=$(median ours)"
    ratio=$(quotient "$(median ours)" "$(median bare)")
    detail="$ratio: TCP_STREAM $(spread ours) Gbit/s, bare $(spread bare) Gbit/s of messages of \
$(cat /tmp/stream.size) bytes, $(wc -l <bare) blocks; $(counter rdma_doorbells block.b) calls of \
post_send in $(counter rdma_turns_that_sent block.b) turns for $count messages"
    if within_bounds "$ratio" $RATIO_MIN 100; then
        passed rc "$detail"
    else
        failed rc "$detail"
    fi
}
