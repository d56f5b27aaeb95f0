# title: The guest's kernel panics
# topologies: pair hosts
# programs:
# seconds: 30
# checks: never

a() {
    echo 1 >/proc/sys/kernel/sysrq
    echo c >/proc/sysrq-trigger
}

b() {
    sleep 20
}
