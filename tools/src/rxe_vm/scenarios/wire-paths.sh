# title: Traffic class on the wire, and a port with IPv6 addresses only, over rc and ud
# topologies: hosts
# programs: roceway
# seconds: 90
# checks: rc_class ud_class rc_ipv6 ud_ipv6

# DSCP 26 and ECT(0).
CLASS=106
SIX=fd09::1 PEER_SIX=fd09::2
[ "$SIDE" = a ] || SIX=fd09::2 PEER_SIX=fd09::1

# Packets that came in with ECT(0), by the kernel's own count.
ect0() {
    awk '/^IpExt:/ && !names { names = split($0, name); next }
        /^IpExt:/ { for (i = 1; i <= names; i++) if (name[i] == "InECT0Pkts") print $i }' \
        /proc/net/netstat
}

# A port whose only addresses are link-local and unique local ones of IPv6.
six_only() {
    ip addr add "$SIX/64" dev "$IFACE" nodad
    ip addr del "$ADDR/24" dev "$IFACE"
    sleep 0.5
}

a() {
    for mode in rc ud; do
        serve $mode tclass=$CLASS,sl=3 || return 1
        meet "$mode-up"
        meet "$mode-down"
        stop_serving
    done
    six_only
    PEER_ADDR=[$PEER_SIX]:4796
    for mode in rc ud; do
        serve $mode flow=12345 || return 1
        meet "$mode-six-up"
        meet "$mode-six-down"
        stop_serving
    done
    ip addr add "$ADDR/24" dev "$IFACE"
}

# ten MODE OPTIONS: ten transactions.
ten() {
    within 25 roceway perf tcp_rr "$PEER_WIRE" --json --wait block --counters -l -10 \
        --device "$(device "$1" "$2")" --address "$WIRE/24" >ten.b
}

b() {
    for mode in rc ud; do
        meet "$mode-up"
        before=$(ect0)
        ten $mode tclass=$CLASS,sl=3
        status=$?
        marked=$(($(ect0) - before))
        if [ $status = 0 ] && [ $marked -ge 10 ]; then
            passed ${mode}_class "$marked packets with ECT(0) came back"
        else
            failed ${mode}_class "status $status, $marked packets"
        fi
        meet "$mode-down"
    done
    six_only
    PEER_ADDR=[$PEER_SIX]:4796
    for mode in rc ud; do
        meet "$mode-six-up"
        check ${mode}_ipv6 ten $mode flow=12345
        meet "$mode-six-down"
    done
    ip addr add "$ADDR/24" dev "$IFACE"
}
