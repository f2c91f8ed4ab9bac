module farshore.dev/bench/kopia

go 1.25

require github.com/kopia/kopia v0.22.3
