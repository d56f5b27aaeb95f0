# title: A side ends with a status
# topologies: pair hosts
# programs:
# seconds: 20
# checks: done

a() {
    passed done
}

b() {
    return 7
}
