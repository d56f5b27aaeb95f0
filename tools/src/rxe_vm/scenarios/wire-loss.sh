# title: Loss of 0.1 % and 1 % under rc, ud and the kernel's TCP
# topologies: hosts
# programs: roceway
# seconds: 150
# checks: rc_0.1 rc_0.1_once ud_0.1 kernel_0.1 rc_1 rc_1_once ud_1 kernel_1

a() {
    for percent in 0.1 1; do
        loss $percent
        for mode in rc ud kernel; do
            serve $mode || return 1
            meet "$mode-$percent-up"
            meet "$mode-$percent-down"
            stop_serving
        done
    done
}

# What one path did: rows, and one line for people.
told() {
    rows <rr
    rows <stream
    DETAIL=$(printf 'p50 %s ms, p99.9 %s ms, %s Gbit/s, %s segments of %s bytes sent again' \
        "$(value p50_ns rr | awk '{ print $1 / 1e6 }')" \
        "$(value p999_ns rr | awk '{ print $1 / 1e6 }')" \
        "$(value gbit_per_s stream)" "$(again retransmissions)" "$(again bytes_retransmitted)")
}

# again COUNTER: what Roceway's TCP sent more than once in both tests; the kernel does not say.
again() {
    [ "$mode" = kernel ] && echo "unknown" && return
    cat rr stream | sed -n "s/.*\"$1\": *\([0-9]*\).*/\1/p" |
        awk '{ sum += $1 } END { print sum + 0 }'
}

b() {
    for percent in 0.1 1; do
        loss $percent
        for mode in rc ud kernel; do
            counters=--counters
            [ $mode != kernel ] || counters=
            meet "$mode-$percent-up"
            if perf $mode tcp_rr -l 4 $counters >rr && perf $mode tcp_stream -l 4 $counters >stream
            then
                told
                passed "${mode}_$percent" "$DETAIL"
                # What RC delivers, TCP does not send again.
                [ $mode != rc ] || check "rc_${percent}_once" [ "$(again bytes_retransmitted)" = 0 ]
            else
                failed "${mode}_$percent" "a test failed"
            fi
            meet "$mode-$percent-down"
        done
    done
}
