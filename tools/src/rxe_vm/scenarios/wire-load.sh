# title: What instructions, pages and code cost a round trip over rc and ud, before a message is sent and after
# topologies: pair
# programs: verbs-pingpong
# seconds: 290
# brief: no
# checks: rc ud

# The ping-pong that uses verbs as Roceway does (`like sleep`), and the same with work of no use at
# both ends for each message. What a round trip is longer by is the price of that work there: what
# is done after a message was sent may be hidden behind the other end's work.
BLOCKS=10
ROUNDS=100
SIZE=103
INSTRUCTIONS_EACH=20000
PAGES_EACH=100
VISITS_EACH=500
WAYS="like spend-before spend-after touch-before touch-after visit-before visit-after"

# options WAY MODE: those of verbs-pingpong.
options() {
    echo "--transport $2 --size $SIZE --count $ROUNDS --inline --like sleep"
    [ "$2" != rc ] || echo "--srq"
    case $1 in
        spend-*) echo "--spend $INSTRUCTIONS_EACH --when ${1#spend-}" ;;
        visit-*) echo "--visit $VISITS_EACH --when ${1#visit-}" ;;
        touch-*) echo "--touch $PAGES_EACH --when ${1#touch-}" ;;
    esac
}

a() {
    for mode in rc ud; do
        block=0
        while [ $block -lt $BLOCKS ]; do
            for way in $WAYS; do
                within 20 verbs-pingpong --device "$DEV" --listen "$ADDR:7301" \
                    $(options $way $mode) >load.a &
                until_listening 7301
                meet "$mode-$block-$way"
                wait $! || return 1
                meet "$mode-$block-$way-done"
            done
            block=$((block + 1))
        done
    done
}

b() {
    local detail
    for mode in rc ud; do
        for way in $WAYS; do rm -f "load-$way"; done
        block=0
        while [ $block -lt $BLOCKS ]; do
            for way in $WAYS; do
                meet "$mode-$block-$way"
                within 20 verbs-pingpong --device "$DEV" --connect "$PEER_ADDR:7301" \
                    $(options $way $mode) | tr ' ' '\n' | sed -n 's/^p50_ns=//p' >>"load-$way"
                meet "$mode-$block-$way-done"
            done
            block=$((block + 1))
        done
        detail="$INSTRUCTIONS_EACH instructions, $PAGES_EACH pages or $VISITS_EACH pieces of code at \
each end:"
        for way in $WAYS; do
            figure PINGPONG $mode wait=block "load=\"$way\"" "p50_ns=$(median "load-$way")"
            detail="$detail $way $(spread "load-$way") ns,"
        done
        if [ "$(wc -l <load-visit-after)" = $BLOCKS ]; then
            passed $mode "${detail%,}"
        else
            failed $mode "${detail%,}"
        fi
    done
}
