# title: Loss of 0.1 % and 1 %, and delay, under rc, ud and the kernel's TCP
# topologies: hosts
# programs: roceway
# seconds: 200
# checks: rc_0.1 rc_0.1_once rc_0.1_server_once ud_0.1 kernel_0.1 rc_1 rc_1_once rc_1_server_once ud_1 kernel_1 rc_delay ud_delay

# Seconds of each test, and the delay that each side adds, in milliseconds.
LENGTH=$(brief 1 4)
DELAY=10

a() {
    for percent in 0.1 1; do
        loss $percent
        for mode in rc ud kernel; do
            counters=--counters
            [ $mode != kernel ] || counters=
            SERVE=$counters
            serve $mode || return 1
            SERVE=
            meet "$mode-$percent-up"
            meet "$mode-$percent-down"
            stop_serving
            [ $mode != rc ] || once "rc_${percent}_server_once" server.a
        done
    done
    loss 0 ${DELAY}ms
    for mode in rc ud; do
        serve $mode || return 1
        meet "$mode-delay-up"
        meet "$mode-delay-down"
        stop_serving
    done
}

# once NAME FILE...: what RC delivers, TCP does not send again.
once() {
    local name=$1 bytes
    shift
    bytes=$(again bytes_retransmitted "$@")
    if ! grep -q bytes_sent "$@"; then
        failed "$name" "there are no counters in $*"
    elif [ "$bytes" = 0 ]; then
        passed "$name"
    else
        failed "$name" "$bytes bytes were sent again"
    fi
}

# again COUNTER FILE...: what Roceway's TCP sent more than once, over all files: JSON of a client,
# or text of a server, where what is 0 does not stand.
again() {
    local counter=$1
    shift
    cat "$@" | sed -n "s/.*\b$counter\"*:*  *\([0-9]*\).*/\1/p" |
        awk '{ sum += $1 } END { print sum + 0 }'
}

# Segments that this guest's kernel sent again since its start: column RetransSegs of `Tcp:`.
kernel_again() {
    awk '/^Tcp:/ && !head { for (i = 1; i <= NF; i++) if ($i == "RetransSegs") head = i; next }
        /^Tcp:/ { print $head }' /proc/net/snmp
}

# What one path did: rows, and one line for people.
told() {
    local again
    rows <rr
    rows <stream
    if [ "$1" = kernel ]; then
        again="$(($(kernel_again) - BEFORE)) segments"
    else
        again="$(again retransmissions rr stream) segments, \
$(again bytes_retransmitted rr stream) bytes,"
    fi
    DETAIL="p50 $(value p50_ns rr | awk '{ print $1 / 1e6 }') ms, \
p99.9 $(value p999_ns rr | awk '{ print $1 / 1e6 }') ms, $(value gbit_per_s stream) Gbit/s, \
$again sent again by this side's TCP"
}

lossy() {
    local mode=$1 counters=--counters
    [ $mode != kernel ] || counters=
    meet "$mode-$percent-up"
    BEFORE=$(kernel_again)
    if perf $mode tcp_rr -l $LENGTH $counters >rr && perf $mode tcp_stream -l $LENGTH $counters >stream
    then
        told $mode
        passed "${mode}_$percent" "$DETAIL"
        [ $mode != rc ] || once "rc_${percent}_once" rr stream
    else
        failed "${mode}_$percent" "a test failed"
    fi
    meet "$mode-$percent-down"
}

# Both sides add the delay: no transaction can be faster than twice that.
delayed() {
    local p50
    meet "$1-delay-up"
    perf "$1" tcp_rr -l $LENGTH >rr || true
    p50=$(value p50_ns rr | awk '{ print int($1 / 1e6) }')
    if [ "${p50:-0}" -ge $((2 * DELAY)) ]; then
        rows <rr
        passed "${1}_delay" "p50 $p50 ms with $DELAY ms each way"
    else
        failed "${1}_delay" "p50 is '$p50' ms with $DELAY ms each way"
    fi
    meet "$1-delay-down"
}

b() {
    for percent in 0.1 1; do
        loss $percent
        for mode in rc ud kernel; do lossy $mode; done
    done
    loss 0 ${DELAY}ms
    for mode in rc ud; do delayed $mode; done
}
