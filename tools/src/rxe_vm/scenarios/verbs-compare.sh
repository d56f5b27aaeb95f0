# title: The same calls by Roceway's bindings and by the crate rdma-sys
# topologies: pair
# programs: verbs-compare
# seconds: 30
# checks: same

a() {
    within 20 verbs-compare >compared
    cat compared
    check same grep -q 'devices=2 differences=0' compared
}

b() {
    :
}
