# title: It needs a program that is not here
# topologies: pair
# programs: no-such-program-here
# seconds: 20
# checks: done

a() {
    passed done
}

b() {
    :
}
