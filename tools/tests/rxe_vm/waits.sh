# title: A side waits for what never comes
# topologies: pair hosts
# programs:
# seconds: 2
# checks: before after

a() {
    meet nowhere
}

b() {
    passed before
    echo "the console's last line"
    sleep 60
}
