# title: TCP_RR over rc and ud beside a bare verbs ping-pong that sleeps in the same manner
# topologies: pair
# programs: roceway verbs-pingpong
# seconds: 280
# checks: rc ud

# Interleaved blocks; the ratio of medians of the blocks' medians counts. A transaction of one byte
# is a message of 24 + 12 + 14 + 52 + 1 bytes: headers of the wire, virtio-net, Ethernet, IPv4, TCP.
BLOCKS=20
ROUNDS=100
SIZE=103
# What is wanted is 1.15; this bound only notices when something is badly wrong.
RATIO_MAX=4
# Sleep at once, as the ping-pong does.
SLEEP="--set turn.spin=0us..0us"

a() {
    for mode in rc ud; do
        roceway perf server --json --wait block $SLEEP --device "$(device $mode)" \
            --address "$WIRE/24" >server.a &
        SERVER=$!
        block=0
        while [ $block -lt $BLOCKS ]; do
            within 20 verbs-pingpong --device "$DEV" --listen "$ADDR:7301" --transport $mode \
                --size $SIZE --count $ROUNDS >bare.a &
            until_listening 7301
            meet "$mode-$block"
            wait $! || return 1
            meet "$mode-$block-done"
            block=$((block + 1))
        done
        stop_serving
    done
}

# Median, least and greatest of a file of numbers, in ms.
spread() {
    sort -n "$1" | awk '{ all[NR] = $1 / 1e6 }
        END { printf "%.3f ms (%.3f to %.3f)", (all[int((NR + 1) / 2)] + all[int(NR / 2) + 1]) / 2,
            all[1], all[NR] }'
}

median() { spread "$1" | sed 's/ .*//'; }

b() {
    for mode in rc ud; do
        rm -f bare ours
        block=0
        while [ $block -lt $BLOCKS ]; do
            meet "$mode-$block"
            within 20 verbs-pingpong --device "$DEV" --connect "$PEER_ADDR:7301" --transport $mode \
                --size $SIZE --count $ROUNDS | tr ' ' '\n' | sed -n 's/^p50_ns=//p' >>bare
            perf $mode tcp_rr -l -$ROUNDS $SLEEP >block.b || return 1
            value p50_ns block.b >>ours
            meet "$mode-$block-done"
            block=$((block + 1))
        done
        ratio=$(echo "$(median ours) $(median bare)" | awk '{ printf "%.2f", $1 / $2 }')
        detail="$ratio: TCP_RR $(spread ours), bare $(spread bare), $(wc -l <bare) blocks"
        if echo "$ratio $RATIO_MAX" | awk '{ exit !($1 > 0 && $1 <= $2) }'; then
            passed $mode "$detail"
        else
            failed $mode "$detail"
        fi
    done
}
