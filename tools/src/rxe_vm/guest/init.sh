#!/bin/busybox sh
# First process of a guest: mounts, modules, the network and its rxe devices; then it runs the
# scenarios that the driver names on the second serial port, and says there how each ended.
#
# The kernel passes TOPOLOGY (pair, hosts), SIDE (a, b), BRIEF and INSTRUCTIONS (1, or not there) of
# its command line as variables. The first serial port is the console: whatever programs print, and
# the kernel's last words.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin TOPOLOGY SIDE BRIEF INSTRUCTIONS
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /run /tmp /root
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
# Through a pipe, since programs draw progress on terminals.
mkfifo /run/console
exec 4<>/run/console </dev/null >/run/console 2>&1
cat <&4 >/dev/ttyS0 &
exec 4>&-
stty -F /dev/ttyS1 raw -echo
exec 3<>/dev/ttyS1

. /rxe-vm/lib.sh

# The driver ends a guest that says this.
give_up() {
    tell "broken $*"
    poweroff -f
}

while read -r module; do
    insmod "/modules/$module" || give_up "insmod $module failed"
done </modules/order
ip link set lo up
ulimit -l unlimited
network || give_up "the network could not be made"

tell ready "$(uname -r)"
while read -r word scenario <&3; do
    case $word in
    run) run_scenario "$scenario" ;;
    poweroff) break ;;
    esac
done
tell done
poweroff -f
