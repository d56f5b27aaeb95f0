# title: All six perf tests over rc and ud
# topologies: pair hosts
# programs: roceway
# seconds: 120
# checks: rc_tcp_rr rc_tcp_stream rc_tcp_maerts rc_tcp_crr rc_udp_rr rc_udp_stream ud_tcp_rr ud_tcp_stream ud_tcp_maerts ud_tcp_crr ud_udp_rr ud_udp_stream

a() {
    for mode in rc ud; do
        serve $mode || return 1
        meet "$mode-up"
        meet "$mode-down"
        stop_serving
    done
}

b() {
    for mode in rc ud; do
        meet "$mode-up"
        for test in tcp_rr tcp_stream tcp_maerts tcp_crr udp_rr udp_stream; do
            perf_check "${mode}_$test" $mode $test -l $(brief 0.5 1)
        done
        meet "$mode-down"
    done
}
