# title: doctor tells what works on soft-RoCE, and what does not
# topologies: pair hosts
# programs: roceway
# seconds: 60
# checks: all rc ud no_raw nothing

a() {
    :
}

# Exit code 0 says that a device would work, 1 that it would not.
b() {
    local status=0
    within 20 roceway doctor --json >doctor || status=$?
    cat doctor
    check all [ $status = 0 ]
    check rc within 20 roceway doctor "rdma:$DEV,mode=rc"
    check ud within 20 roceway doctor "rdma:$DEV,mode=ud"
    # The driver has no RAW_PACKET queue pairs.
    status=0
    within 20 roceway doctor "rdma:$DEV,mode=raw" || status=$?
    check no_raw [ $status = 1 ]
    status=0
    within 20 roceway doctor rdma:nothing0 || status=$?
    check nothing [ $status = 1 ]
}
