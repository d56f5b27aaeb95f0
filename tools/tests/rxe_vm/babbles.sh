# title: A program writes where only lines may stand
# topologies: pair hosts
# programs:
# seconds: 20
# checks: done

a() {
    passed done
    echo "{} not a line of ours" >&3
}

b() {
    sleep 1
}
