#!/bin/sh
# usage: two-hosts.sh TRIREME SOURCE_DIR CASE. mpirun over two hosts, which are network namespaces of this machine
# (tests/lab/netlab.sh): the same answers as on one rank. 77: not possible here.
set -eu
trireme=$1 source=$2 case=$3
demo=$source/configs/demo/digits netlab=$source/tests/lab/netlab.sh
command -v mpirun >/dev/null || { echo "skip: no mpirun"; exit 77; }
export TRM_LAB="t$$"
dir=$(mktemp -d)
trap '"$netlab" down 2 2>/dev/null; rm -rf "$dir"' EXIT
"$netlab" up 2 # its 77 is ours
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_WAIT_POLICY=passive
export TRM_DEADLINE_SCALE="${TRM_DEADLINE_SCALE:-10}"

# hosts RANKS_PER_HOST FLAGS... -- ARGUMENTS...: runs trireme over h1 and h2
hosts() {
    per=$1
    shift
    "$netlab" on h1 mpirun --oversubscribe --bind-to none --host "h1:$per,h2:$per" -mca plm_rsh_agent "$netlab" \
        -np $((2 * per)) "$@"
}
fail() {
    echo "FAILED: $*"
    cat "$dir"/*.log 2>/dev/null || true
    exit 1
}
left() { # processes of this test; a zombie is only a line that its parent has not read
    # shellcheck disable=SC2009  # pgrep tells no states
    ps -eo stat=,pid=,args= | grep -F "$dir/" | grep -v -e '^Z' -e 'grep -F' || true
}
none_left() {
    n=0
    while [ -n "$(left)" ]; do
        n=$((n + 1))
        [ $n -lt 200 ] || fail "processes are left: $(left)"
        sleep 0.1
    done
}
# equal ONE TWO: the same records in order, outputs within 1e-5 of the largest
equal() {
    paste -d, "$1" "$2" | awk -F, '
        NR > 1 { n = NF / 2
            if ($1 != $(1 + n)) { print "row " NR ": " $1 " is " $(1 + n); bad++ }
            for (i = 2; i < n; i++) {
                d = $i - $(i + n); if (d < 0) d = -d; if (d > worst) worst = d
                v = $i < 0 ? -$i : $i; if (v > scale) scale = v } }
        END { print NR - 1 " records, largest difference " worst / scale " of the scale"
              exit !(NR == 361 && bad == 0 && worst <= 1e-5 * scale) }' || fail "$2 differs from one rank's"
}
one_rank() {
    "$trireme" score "$demo" --input "$demo/images" --output "$dir/one.csv" --raw --threads 1 2>"$dir/one.log" ||
        fail "one rank"
}

case $case in
score) # layouts across the hosts, half of the ranks on each
    one_rank
    for layout in 2:data=2 4:data=4 2:tensor=2 2:pipeline=2 4:data=2,tensor=2 4:tensor=2,pipeline=2 4:tensor=4; do
        ranks=${layout%%:*} layout=${layout#*:}
        hosts $((ranks / 2)) "$trireme" score "$demo" --input "$demo/images" --output "$dir/$layout.csv" --raw \
            --parallel "$layout" --threads 1 2>"$dir/$layout.log" || fail "$layout"
        ! grep -q lost "$dir/$layout.log" || fail "$layout: a replica was lost"
        printf '%s: ' "$layout"
        equal "$dir/one.csv" "$dir/$layout.csv"
    done
    none_left
    ;;
bytes) # h2 does not see the images: they travel as bytes
    one_rank
    cp -r "$demo" "$dir/demo"
    export TRM_LAB_HIDE="$dir/demo/images"
    hosts 1 "$trireme" score "$dir/demo" --input "$dir/demo/images" --output "$dir/two.csv" --raw --threads 1 \
        --log info 2>"$dir/two.log" || fail "two ranks"
    grep -q 'images travel as bytes: rank 1: image ' "$dir/two.log" || fail "the images did not travel as bytes"
    equal "$dir/one.csv" "$dir/two.csv"
    ;;
listen) # the address is chosen by hand; one that the other host does not reach is named
    hosts 1 "$trireme" score "$demo" --input "$demo/images" --output "$dir/a.csv" --zmq-listen 10.77.0.1 \
        2>"$dir/a.log" || fail "--zmq-listen 10.77.0.1"
    ! grep -q lost "$dir/a.log" || fail "a replica was lost"
    TRM_DEADLINE_SCALE=1 hosts 1 -x TRM_DEADLINE_SCALE "$trireme" score "$demo" --input "$demo/images" \
        --output "$dir/b.csv" --zmq-listen 127.0.0.1 2>"$dir/b.log" || true
    grep -q 'want an address that all hosts reach in --zmq-listen' "$dir/b.log" || fail "it does not say what is wrong"
    none_left
    ;;
rollcall) # a rank of the other host that never begins is named with that host
    cat >"$dir/asleep.sh" <<'R'
#!/bin/sh
if [ "$OMPI_COMM_WORLD_RANK" = "$ASLEEP" ]; then while :; do sleep 1; done; fi
exec "$@"
R
    chmod +x "$dir/asleep.sh"
    export TRM_DEADLINE_SCALE=1 TRM_ROLL_CALL_S=4 ASLEEP=3
    ! hosts 2 -x ASLEEP -x TRM_ROLL_CALL_S -x TRM_DEADLINE_SCALE "$dir/asleep.sh" "$trireme" score "$demo" --input "$demo/images" \
        --output "$dir/o.csv" 2>"$dir/e.log" || fail "it succeeded"
    grep -q '^trireme: the roll call: .*1 of 4 ranks missing: rank 3 (host h2)' "$dir/e.log" || fail "rank 3 is not named"
    none_left
    export TRM_JOB_FAULT=roll:late:2:600000
    ! hosts 2 -x TRM_JOB_FAULT -x TRM_ROLL_CALL_S -x TRM_DEADLINE_SCALE "$trireme" score "$demo" --input "$demo/images" \
        --output "$dir/o.csv" 2>"$dir/e.log" || fail "it succeeded"
    grep -q '1 of 4 ranks missing after .* s: rank 2 (host h2)' "$dir/e.log" || fail "rank 2 is not named"
    none_left
    ;;
serve) # a serving cluster across the hosts, replicas and shards; the links between them are encrypted
    for layout in 'replicas: 2' 'parallel: "tensor=2"' 'parallel: "pipeline=2"'; do
        printf 'cluster: { threads: 1, %s }\nmodels:\n  - { name: digits, path: "%s/model.onnx" }\n  - { name: sotu, path: "%s" }\n' \
            "$layout" "$demo" "$source/configs/demo/tiny-sotu" >"$dir/c.yaml"
        echo 'gateway: { listen: "10.77.0.1:8080" }' >>"$dir/c.yaml"
        hosts 1 "$trireme" serve "$dir/c.yaml" 2>"$dir/serve.log" &
        job=$!
        n=0
        until grep -q 'ready after' "$dir/serve.log"; do
            n=$((n + 1))
            { [ $n -lt 600 ] && kill -0 $job; } || fail "$layout: it did not become ready"
            sleep 0.1
        done
        n=0
        while [ $n -lt 6 ]; do
            n=$((n + 1))
            "$netlab" on h2 curl -s --max-time 60 http://10.77.0.1:8080/v1/completions \
                -d '{"model": "sotu", "prompt": "We must", "max_tokens": 12, "seed": 3}' >"$dir/answer" || fail "$layout: curl"
            sed 's/.*"text":"\([^"]*\)".*/\1/' "$dir/answer" >>"$dir/texts"
            echo >>"$dir/texts"
            "$netlab" on h1 curl -s --max-time 60 --data-binary "@$demo/images/000.png" \
                http://10.77.0.1:8080/predictions/digits | sed 's/:.*//' >>"$dir/labels" || fail "$layout: predictions"
            echo >>"$dir/labels"
        done
        pkill -USR1 -f "^mpirun .*$dir/c.yaml" # which hands it on to the ranks
        wait $job || fail "$layout: exit code $?"
        none_left
    done
    [ "$(grep -c . "$dir/texts")" = 18 ] && [ "$(sort -u "$dir/texts" | grep -c .)" = 1 ] || fail "texts differ: $(sort "$dir/texts" | uniq -c)"
    [ "$(sort -u "$dir/labels" | grep -c .)" = 1 ] || fail "labels differ"
    echo "three layouts across two hosts: $(sort -u "$dir/texts" | grep .)"
    ;;
cut) # the cable of h2 is cut in a run: the job ends, and so do the ranks over there
    i=0
    while [ $i -lt 100 ]; do
        for f in "$demo"/images/*.png; do echo "$f"; done
        i=$((i + 1))
    done >"$dir/list.txt"
    export TRM_DEADLINE_SCALE=1
    hosts 1 -x TRM_DEADLINE_SCALE "$trireme" score "$demo" --input "$dir/list.txt" --output "$dir/o.jsonl" --batch 1 \
        2>"$dir/e.log" &
    job=$!
    n=0
    while [ ! -s "$dir/o.jsonl" ] && [ $n -lt 600 ]; do
        sleep 0.05
        n=$((n + 1))
    done
    "$netlab" cut h2
    n=0
    # shellcheck disable=SC2009
    while ps -eo stat=,args= | grep -F "$dir/" | grep -v -e '^Z' -e 'grep -F' -e mpirun | grep -q 'trireme score'; do
        n=$((n + 1))
        [ $n -lt 600 ] || fail "ranks are left: $(left)"
        sleep 0.1
    done
    echo "all ranks had ended $((n / 10)) s after the cut"
    grep -q 'lost replica 1/1 (rank 1, pid [0-9]* on h2)' "$dir/e.log" || fail "the replica is not named"
    [ "$(wc -l <"$dir/o.jsonl")" = 36000 ] || fail "$(wc -l <"$dir/o.jsonl") of 36000 records"
    # mpirun and its daemon on h2 wait for each other for ever: that is theirs
    "$netlab" down 2
    wait $job || true
    ;;
*)
    echo "unknown case $case"
    exit 1
    ;;
esac
echo "ok: $case"
