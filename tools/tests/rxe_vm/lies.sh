# title: One check fails, one is never reported
# topologies: pair hosts
# programs:
# seconds: 20
# checks: wrong forgotten

a() {
    check wrong false || true
}

b() {
    say "nothing to report"
}
