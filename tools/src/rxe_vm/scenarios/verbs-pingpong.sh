# title: Roceway's own bindings: round trips and streams over bare RC and UD
# topologies: pair hosts
# programs: verbs-pingpong
# seconds: 90
# checks: rc ud rc_poll rc_srq rc_inline rc_stream

# Name, port, and what both ends are told. Sizes as those of the other figures.
TESTS="rc:7001:--transport rc --size 64 --count 300
ud:7002:--transport ud --size 64 --count 300
rc_poll:7003:--transport rc --size 64 --count 100 --wait poll
rc_srq:7004:--transport rc --size 1024 --count 100 --srq
rc_inline:7005:--transport rc --size 64 --count 100 --inline
rc_stream:7006:--test stream --transport rc --size 65536 --count 300"

a() {
    echo "$TESTS" | while IFS=: read -r name port options; do
        within 20 verbs-pingpong --device "$DEV" --listen "$ADDR:$port" $options &
        until_listening "$port"
        meet "$name"
        wait $! || return 1
    done
}

# Rows of a figure: `pingpong ... p50_ns=... ` or `stream ... bytes_per_second=...`.
report() {
    local mode=${1%%_*} wait=block numbers
    [ "$1" != rc_poll ] || wait=spin
    numbers=$(tr ' ' '\n' <"$2" | grep -E '^p(50|99|999)_ns=')
    if [ -n "$numbers" ]; then
        figure PINGPONG "$mode" wait=$wait $numbers
    else
        numbers=$(tr ' ' '\n' <"$2" | awk -F= '/^bytes_per_second=/ { print $2 * 8e-9 }')
        [ -n "$numbers" ] && figure STREAM "$mode" wait=$wait "gbit_per_s=$numbers"
    fi
}

b() {
    echo "$TESTS" | while IFS=: read -r name port options; do
        meet "$name"
        if within 20 verbs-pingpong --device "$DEV" --connect "$PEER_ADDR:$port" $options >out.$name
        then
            cat out.$name
            check "$name" report "$name" out.$name
        else
            failed "$name" "$options"
        fi
    done
}
