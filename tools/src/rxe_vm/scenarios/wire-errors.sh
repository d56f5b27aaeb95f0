# title: What cannot work is refused in words that name the cause and the remedy
# topologies: pair
# programs: roceway setpriv
# seconds: 90
# checks: no_device no_mode gid port_down memlock memlock_enough

# Somebody without privilege. By its path, since busybox has a smaller program of this name.
NOBODY="/usr/bin/setpriv --reuid=65534 --regid=65534 --clear-groups"

a() {
    chmod 666 /dev/infiniband/*
    ulimit -l 8192
    AS=$NOBODY
    serve rc || return 1
    meet up
    meet down
    stop_serving
}

# refused NAME DEVICE PATTERN...: a command on the device fails, and says each of these.
refused() {
    local name=$1 device=$2 status=0 pattern
    shift 2
    within 15 $AS roceway perf server --json --device "$device" --address "$WIRE/24" \
        >said.b 2>&1 || status=$?
    cat said.b
    if [ $status != 1 ] && [ $status != 2 ]; then
        failed "$name" "status $status"
        return
    fi
    for pattern in "$@"; do
        if ! grep -qi "$pattern" said.b; then
            failed "$name" "does not say '$pattern': $(tr '\n' ' ' <said.b)"
            return
        fi
    done
    passed "$name" "$(tr '\n' ' ' <said.b)"
}

b() {
    refused no_device "rdma:nothing0,mode=rc,peer=$PEER_ADDR" nothing0 rxe0 rxe1
    refused no_mode "rdma:$DEV,peer=$PEER_ADDR" mode=rc mode=ud
    refused gid "$(device rc gid=77)" 77
    meet up
    # The other side's user may use the devices by now; 8 MiB suffice for rc, both ways.
    AS=$NOBODY
    ulimit -l 8192
    check memlock_enough perf rc tcp_rr -l -20
    meet down
    ulimit -l 1024
    refused memlock "$(device rc)" "to be locked" "ulimit -l"
    AS=
    ip link set "$IFACE" down
    refused port_down "$(device rc)" "down"
    links_up
}
