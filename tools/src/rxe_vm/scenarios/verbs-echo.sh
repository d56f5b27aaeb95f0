# title: A queue pair of the crate ibverbs echoes what Roceway's bindings send
# topologies: pair hosts
# programs: verbs-pingpong ibverbs-echo
# seconds: 40
# checks: echoed small large

SIZES="small:7101:64 large:7102:65536"

a() {
    local one name port size count=0
    for one in $SIZES; do
        IFS=: read -r name port size <<END
$one
END
        within 15 ibverbs-echo --device "$DEV" --gid "$(gid_index)" --listen "$ADDR:$port" \
            --size "$size" --count 100 >echo.$name &
        until_listening "$port"
        meet "$name"
        wait $!
        count=$((count + $(sed -n 's/^echoed count=//p' echo.$name)))
    done
    check echoed [ "$count" = 200 ]
}

b() {
    local one name port size
    for one in $SIZES; do
        IFS=: read -r name port size <<END
$one
END
        meet "$name"
        check "$name" within 15 verbs-pingpong --device "$DEV" --connect "$PEER_ADDR:$port" \
            --transport rc --size "$size" --count 100
    done
}
