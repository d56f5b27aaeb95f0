# title: Loss of 0.1 % and 1 % under rc, ud and the kernel's TCP
# topologies: hosts
# programs: roceway
# seconds: 150
# checks: rc_0.1 ud_0.1 kernel_0.1 rc_1 ud_1 kernel_1

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

# Latency and throughput of one path, as rows and as a line of a table.
b() {
    for percent in 0.1 1; do
        loss $percent
        for mode in rc ud kernel; do
            meet "$mode-$percent-up"
            if perf $mode tcp_rr -l 4 >rr && perf $mode tcp_stream -l 4 >stream; then
                rows <rr
                rows <stream
                passed "${mode}_$percent" "$(value p50_ns rr) $(value p999_ns rr) ns,\
 $(value gbit_per_s stream) Gbit/s at $percent % loss each way"
            else
                failed "${mode}_$percent" "a test failed"
            fi
            meet "$mode-$percent-down"
        done
    done
}
