# What scenarios may call, and what init.sh needs. Everything goes to the driver as lines on
# descriptor 3: `@SIDE WORD REST`.

# Variables of a scenario: SIDE (a or b), OTHER; DEV, IFACE, ADDR (rxe device, its interface, the
# interface's IPv4 address), WIRE (an address without prefix for Roceway), and the same of the other
# side with PEER_ before them. TOPOLOGY is pair or hosts.

# Busybox runs its own applets before it looks into PATH; these are iproute2's.
ip() { /usr/bin/ip "$@"; }
tc() { /usr/bin/tc "$@"; }

# Words to the driver, in one line.
tell() { echo "@$SIDE $*" >&3; }

# A note in the driver's log.
say() { tell say "$*"; }

tell_check() {
    local verdict=$1 name=$2
    shift 2
    tell "$verdict $name $*"
}
# passed NAME [DETAIL], failed NAME REASON: the verdict of one of the scenario's checks.
passed() { tell_check passed "$@"; }
failed() { tell_check failed "$@"; }

# brief SHORT LONG: a count or time of a run that is to be short (`--brief`), or of any other.
brief() { if [ -n "$BRIEF" ]; then echo "$1"; else echo "$2"; fi; }

# check NAME COMMAND...: runs the command; its status is the verdict, and is returned.
check() {
    local name=$1 status=0
    shift
    "$@" || status=$?
    if [ $status = 0 ]; then passed "$name"; else failed "$name" "status $status: $*"; fi
    return $status
}

# skipped NAME REASON: a check that cannot be made here.
skipped() { tell_check skipped "$@"; }

# within SECONDS COMMAND...: ends the command by force when the time is over (status 137).
within() {
    local limit=$1
    shift
    timeout -s KILL "$limit" "$@"
}

# Rows of a `roceway perf --json` document on standard input.
rows() { tell rows "$(tr -d '\n')"; }

# figure TEST MODE NAME=NUMBER...: a row of a program that is not ours, or of several runs of ours
# (STACK=roceway before it). MODE is rc or ud; the names are those of a row (p50_ns,
# transactions_per_s, gbit_per_s, ...), and `wait` is how it waits.
figure() {
    local test=$1 mode=$2 pair members= wait=null
    shift 2
    for pair in "$@"; do
        case $pair in
        wait=*) wait="\"${pair#*=}\"" ;;
        *) members="$members,\"${pair%%=*}\":${pair#*=}" ;;
        esac
    done
    tell rows "{\"rows\":[{\"test\":\"$test\",\"stack\":\"${STACK:-verbs}\",\
\"device\":\"rdma:$DEV,mode=$mode\",\"mode\":$wait$members}]}"
}

# spread FILE: median, least and greatest of a file of numbers.
spread() {
    sort -n "$1" | awk '{ all[NR] = $1 }
        END { printf "%.4g (%.4g to %.4g)", (all[int((NR + 1) / 2)] + all[int(NR / 2) + 1]) / 2,
            all[1], all[NR] }'
}

# median FILE: that alone.
median() { spread "$1" | sed 's/ .*//'; }

# quotient A B, with two decimals.
quotient() { echo "$1 $2" | awk '{ printf "%.2f", $1 / $2 }'; }

# within_bounds NUMBER LEAST MOST
within_bounds() { echo "$1 $2 $3" | awk '{ exit !($1 >= $2 && $1 <= $3) }'; }

# counter NAME FILE: a counter in the document of a test with --counters; 0 if it is not there.
counter() {
    local found
    found=$(value "$1" "$2")
    echo "${found:-0}"
}

# meet NAME: goes on when the other side has come to the same place.
meet() {
    local answer=
    if [ "$TOPOLOGY" = pair ]; then
        : >"/run/meet/$1.$SIDE"
        until [ -e "/run/meet/$1.$OTHER" ]; do sleep 0.02; done
    else
        tell meet "$1"
        until [ "$answer" = "go $1" ]; do read -r answer <&3 || return 1; done
    fi
}

# until_listening PORT: waits 10 s for a kernel socket that listens there.
until_listening() {
    local tries=200 hex
    hex=$(printf ':%04X' "$1")
    until cat /proc/net/tcp /proc/net/tcp6 | grep -q "$hex [0-9A-F]*:0000 0A"; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || return 1
        sleep 0.05
    done
}

# The index of the RoCE v2 GID that holds this side's IPv4 address.
gid_index() {
    local ports=/sys/class/infiniband/$DEV/ports/1 gid wanted
    wanted=0000:0000:0000:0000:0000:ffff:$(printf '%02x%02x:%02x%02x' $(echo "$ADDR" | tr . ' '))
    for gid in "$ports"/gids/*; do
        [ "$(cat "$gid")" = "$wanted" ] || continue
        case $(cat "$ports/gid_attrs/types/${gid##*/}") in
        "RoCE v2") echo "${gid##*/}" && return 0 ;;
        esac
    done
    return 1
}

# loss PERCENT [DELAY]: netem on what this side sends; loss 0 takes it away.
loss() {
    tc qdisc del dev "$IFACE" root 2>/dev/null
    [ "$1" = 0 ] && [ -z "$2" ] || tc qdisc add dev "$IFACE" root netem loss "$1%" ${2:+delay "$2"}
}

# device MODE [OPTIONS]: this side's device for `roceway --device`, joined to the other side.
device() { echo "rdma:$DEV,mode=$1,peer=$PEER_ADDR${2:+,$2}"; }

# serve MODE [OPTIONS]: `roceway perf server` on that device; its process is then $SERVER. MODE
# kernel is the guest's own TCP. Returns when it listens, with a failure after 10 s. What stands in
# AS comes before each `roceway`, such as setpriv with its options; what stands in SERVE are further
# options of the server.
serve() {
    local tries=200
    : >"server.$SIDE"
    if [ "$1" = kernel ]; then
        $AS roceway perf server --json --wait block $SERVE --listen "$ADDR" >"server.$SIDE" &
    else
        $AS roceway perf server --json --wait block $SERVE --device "$(device "$@")" \
            --address "$WIRE/24" >"server.$SIDE" &
    fi
    SERVER=$!
    until grep -q listening "server.$SIDE"; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] && kill -0 "$SERVER" || return 1
        sleep 0.05
    done
}

# stop_serving: ends it as a user would.
stop_serving() {
    kill -TERM "$SERVER"
    wait "$SERVER" 2>/dev/null || true
}

# perf MODE TEST OPTIONS...: one of roceway's tests against the other side's server, as JSON.
# Both ends sleep when there is nothing to do: the driver's own work needs the processors too.
perf() {
    local mode=$1 test=$2
    shift 2
    if [ "$mode" = kernel ]; then
        within 25 $AS roceway perf "$test" "$PEER_ADDR" --json --wait block "$@"
    else
        within 25 $AS roceway perf "$test" "$PEER_WIRE" --json --wait block \
            --device "$(device "$mode")" --address "$WIRE/24" "$@"
    fi
}

# perf_check NAME MODE TEST OPTIONS...: the same, with its rows told, as a check.
perf_check() {
    local name=$1 file=$1.$SIDE
    shift
    if perf "$@" >"$file"; then
        rows <"$file"
        passed "$name"
    else
        failed "$name" "perf $*"
    fi
}

# value NAME FILE: the first number of this name in a JSON document.
value() { sed -n "s/.*\"$1\": *\([0-9.e+-]*\).*/\1/p" "$2" | head -n 1; }

# packets: how many this side's device has received since its start.
packets() { cat "/sys/class/infiniband/$DEV/ports/1/hw_counters/rcvd_pkts"; }

# until_moving: waits until 300 packets more have come than when it was called, for 20 s: more than
# connections take to be made, so that a test is under way.
until_moving() {
    local tries=200 enough=$(($(packets) + 300))
    until [ "$(packets)" -ge $enough ]; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || return 1
        sleep 0.1
    done
}

# milliseconds: since the guest's start.
milliseconds() { awk '{ print int($1 * 1000) }' /proc/uptime; }

# --- below: init.sh and side.sh only

describe_side() {
    SIDE=$1 OTHER=b IFACE=eth0 PEER_IFACE=eth0 DEV=rxe0 PEER_DEV=rxe0
    ADDR=10.9.0.1 PEER_ADDR=10.9.0.2 WIRE=10.10.0.1 PEER_WIRE=10.10.0.2
    if [ "$TOPOLOGY" = pair ]; then IFACE=v0 PEER_IFACE=v1 PEER_DEV=rxe1; fi
    [ "$SIDE" = b ] || return 0
    OTHER=a ADDR=10.9.0.2 PEER_ADDR=10.9.0.1 WIRE=10.10.0.2 PEER_WIRE=10.10.0.1
    if [ "$TOPOLOGY" = pair ]; then IFACE=v1 PEER_IFACE=v0 DEV=rxe1 PEER_DEV=rxe0; fi
}

network() {
    if [ "$TOPOLOGY" = pair ]; then pair_network; else host_network; fi
}

host_network() {
    describe_side "$SIDE"
    ip link set eth0 mtu 4200 up && ip addr add "$ADDR/24" dev eth0 &&
        rdma link add rxe0 type rxe netdev eth0
}

# Two devices of one namespace that talk over a veth pair: packets to the other end's address go
# out, although it is local. Policy routing looks before the table of local addresses does.
# A veth receives on the processor that sends, so two processors overtake each other; no cable does
# that. Steered by flow (RPS), a flow's packets stay in order.
pair_network() {
    local all=/proc/sys/net/ipv4/conf device
    ip link add v0 type veth peer name v1 || return 1
    for device in v0 v1; do
        echo 3 >/sys/class/net/$device/queues/rx-0/rps_cpus || return 1
    done
    for device in all v0 v1; do
        echo 1 >$all/$device/accept_local
        echo 0 >$all/$device/rp_filter
        echo 1 >$all/$device/arp_ignore
        echo 2 >$all/$device/arp_announce
    done
    ip addr add 10.9.0.1/32 dev v0 && ip addr add 10.9.0.2/32 dev v1 &&
        ip rule add pref 1 iif lo from 10.9.0.1 to 10.9.0.2 lookup 101 &&
        ip rule add pref 2 iif lo from 10.9.0.2 to 10.9.0.1 lookup 102 &&
        ip rule add pref 5 lookup local && ip rule del pref 0 &&
        links_up && rdma link add rxe0 type rxe netdev v0 && rdma link add rxe1 type rxe netdev v1
}

# What a link that went down forgets.
links_up() {
    ip link set v0 mtu 4200 up && ip link set v1 mtu 4200 up &&
        ip route replace 10.9.0.2 dev v0 src 10.9.0.1 table 101 &&
        ip route replace 10.9.0.1 dev v1 src 10.9.0.2 table 102 &&
        ip neigh replace 10.9.0.2 dev v0 lladdr "$(cat /sys/class/net/v1/address)" &&
        ip neigh replace 10.9.0.1 dev v1 lladdr "$(cat /sys/class/net/v0/address)"
}

# Both sides here, or the one of this guest; what they leave running ends with them.
run_scenario() {
    local side sides=$SIDE pids= pid
    [ "$TOPOLOGY" = hosts ] || sides="a b"
    rm -rf /run/meet
    mkdir -p /run/meet
    for side in $sides; do
        setsid sh /rxe-vm/side.sh "$1" "$side" &
        pids="$pids $!"
    done
    for pid in $pids; do wait "$pid"; done
    for pid in $pids; do kill -KILL -- "-$pid" 2>/dev/null; done
    for side in v0 v1 eth0; do tc qdisc del dev $side root 2>/dev/null; done
}
