# title: Traffic class, service level, flow label, a GID by index, a port with IPv6 only, over rc and ud
# topologies: hosts
# programs: roceway
# seconds: 120
# checks: rc_said ud_said rc_class ud_class rc_gid ud_gid rc_ipv6 ud_ipv6

# DSCP 26 and ECT(0).
CLASS=106
FLOW=12345
SIX=fd09::1 PEER_SIX=fd09::2
[ "$SIDE" = a ] || SIX=fd09::2 PEER_SIX=fd09::1

# Packets that came in with ECT(0), by the kernel's own count.
ect0() {
    awk '/^IpExt:/ && !names { names = split($0, name); next }
        /^IpExt:/ { for (i = 1; i <= names; i++) if (name[i] == "InECT0Pkts") print $i }' \
        /proc/net/netstat
}

# The index of the RoCE v2 GID with this side's IPv6 address.
six_index() {
    local ports=/sys/class/infiniband/$DEV/ports/1 gid
    for gid in "$ports"/gids/*; do
        [ "$(cat "$gid")" = "fd09:0000:0000:0000:0000:0000:0000:000${SIX#fd09::}" ] || continue
        case $(cat "$ports/gid_attrs/types/${gid##*/}") in
        "RoCE v2") echo "${gid##*/}" && return 0 ;;
        esac
    done
    return 1
}

# An address of IPv6 beside that of IPv4, which goes then. The table of GIDs follows a little later.
six_too() { ip addr add "$SIX/64" dev "$IFACE" nodad; }
six_only() { ip addr del "$ADDR/24" dev "$IFACE"; }
until_gid() {
    local tries=100
    until six_index >/dev/null; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || return 1
        sleep 0.05
    done
}

a() {
    for mode in rc ud; do
        serve $mode tclass=$CLASS,sl=3 || return 1
        meet "$mode-up"
        meet "$mode-down"
        stop_serving
    done
    six_too
    until_gid || return 1
    PEER_ADDR=[$PEER_SIX]:4796
    for way in gid six; do
        options=flow=$FLOW
        if [ $way = gid ]; then options=gid=$(six_index); else six_only; fi
        for mode in rc ud; do
            serve $mode "$options" || return 1
            meet "$mode-$way-up"
            meet "$mode-$way-down"
            stop_serving
        done
    done
    ip addr add "$ADDR/24" dev "$IFACE"
    ip addr del "$SIX/64" dev "$IFACE"
}

# ten MODE OPTIONS: ten transactions.
ten() {
    within 25 roceway perf tcp_rr "$PEER_WIRE" --json --wait block --counters -l -10 \
        --device "$(device "$1" "$2")" --address "$WIRE/24" >ten.b 2>said.b
}

# chosen NAME MODE OPTIONS WORDS...: ten transactions, and the device says what it uses.
chosen() {
    local name=$1 mode=$2 options=$3 word said
    shift 3
    if ! ten "$mode" "$options"; then
        failed "$name" "$(tr '\n' ' ' <said.b)"
        return
    fi
    for word in "$@"; do
        if ! grep -q "$word" said.b; then
            failed "$name" "does not say '$word': $(tr '\n' ' ' <said.b)"
            return
        fi
    done
    said=$(grep -o 'gid index [^;]*\|traffic class [^;]*\|service level [^;]*\|flow label [^;]*' said.b)
    passed "$name" "$(echo "$said" | tr '\n' ';')"
}

b() {
    local before mode marked
    for mode in rc ud; do
        meet "$mode-up"
        before=$(ect0)
        chosen ${mode}_said $mode tclass=$CLASS,sl=3 "traffic class $CLASS" "service level 3"
        marked=$(($(ect0) - before))
        if [ $marked -ge 10 ]; then
            passed ${mode}_class "$marked packets with ECT(0) came back"
        else
            failed ${mode}_class "$marked packets with ECT(0)"
        fi
        meet "$mode-down"
    done
    six_too
    until_gid || return 1
    PEER_ADDR=[$PEER_SIX]:4796
    for mode in rc ud; do
        meet "$mode-gid-up"
        chosen ${mode}_gid $mode "gid=$(six_index)" "gid index $(six_index) $SIX "
        meet "$mode-gid-down"
    done
    six_only
    for mode in rc ud; do
        meet "$mode-six-up"
        chosen ${mode}_ipv6 $mode flow=$FLOW "gid index $(six_index) $SIX " "flow label $FLOW"
        meet "$mode-six-down"
    done
    ip addr add "$ADDR/24" dev "$IFACE"
    ip addr del "$SIX/64" dev "$IFACE"
}
