# title: Instructions of a round trip over rc and ud: bare verbs, verbs as Roceway uses them, TCP_RR
# topologies: pair
# programs: roceway verbs-pingpong
# seconds: 200
# brief: no
# checks: rc ud

# Of `rxe-vm --instructions`: time is instructions of both ends and of the kernel, and the same in
# every run. Both ends sleep for each message: who is woken does not drive away who woke it.
ROUNDS=100
SIZE=103
# Each has all before it; `inline` is bare verbs too.
STEPS="bare inline sends receives sleep"
# What is wanted is 1.15, and this holds on any machine.
RATIO_MAX=1.15
SLEEP="--set turn.spin=0us..0us"

# options STEP MODE: those of verbs-pingpong.
options() {
    echo "--transport $2 --size $SIZE --count $ROUNDS"
    [ "$1" = bare ] || echo "--inline"
    case $1 in sends | receives | sleep) echo "--like $1" ;; esac
    [ "$1$2" != receivesrc ] && [ "$1$2" != sleeprc ] || echo "--srq"
}

a() {
    [ -n "$INSTRUCTIONS" ] || return 0
    for mode in rc ud; do
        roceway perf server --json --wait block $SLEEP --device "$(device $mode)" \
            --address "$WIRE/24" >server.a &
        SERVER=$!
        for step in $STEPS; do
            within 60 verbs-pingpong --device "$DEV" --listen "$ADDR:7301" \
                $(options $step $mode) >bare.a &
            until_listening 7301
            meet "$mode-$step"
            wait $! || return 1
            meet "$mode-$step-done"
        done
        meet "$mode-up"
        meet "$mode-counted"
        stop_serving
    done
}

# per_round NAME: a counter of the last test over its transactions.
per_round() { quotient "$(counter "$1" ours.b)" $ROUNDS; }

b() {
    local first ours ratio detail
    if [ -z "$INSTRUCTIONS" ]; then
        skipped rc "wants --instructions"
        skipped ud "wants --instructions"
        return
    fi
    mount -t debugfs debugfs /sys/kernel/debug
    echo NO_WAKEUP_PREEMPTION >/sys/kernel/debug/sched/features || return 1
    for mode in rc ud; do
        first= detail=
        for step in $STEPS; do
            meet "$mode-$step"
            within 60 verbs-pingpong --device "$DEV" --connect "$PEER_ADDR:7301" \
                $(options $step $mode) | tr ' ' '\n' | sed -n 's/^p50_ns=//p' >step.b
            meet "$mode-$step-done"
            [ -s step.b ] || return 1
            first=${first:-$(cat step.b)}
            detail="$detail$step $(cat step.b), "
        done
        meet "$mode-up"
        perf $mode tcp_rr -l -$ROUNDS $SLEEP --counters >ours.b || return 1
        ours=$(value p50_ns ours.b)
        ratio=$(quotient "$ours" "$first")
        detail="$ratio: TCP_RR $ours instructions, bare verbs $first (${detail%, }); events of \
the asking end a transaction $(per_round rdma_events), its posts of receives \
$(per_round rdma_posts_of_receives)"
        if within_bounds "$ratio" 0.01 $RATIO_MAX; then
            passed $mode "$detail"
        else
            failed $mode "$detail"
        fi
        meet "$mode-counted"
    done
}
