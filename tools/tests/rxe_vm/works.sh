# title: Both sides meet, and rows arrive as they were
# topologies: pair hosts
# programs:
# seconds: 20
# checks: a b leftovers

a() {
    sleep 1000 &
    meet once
    meet twice
    passed a "$(uname -m)"
}

b() {
    meet once
    meet twice
    figure SEND_LAT rc wait=block p50_ns=1500
    passed b
    skipped leftovers "of no use here"
}
