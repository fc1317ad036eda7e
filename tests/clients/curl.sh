#!/usr/bin/env bash
# The simple endpoints as one calls them by hand: health, version, models, predictions with pictures, generate, error texts.
# usage: curl.sh TRIREME SOURCE_DIR     77: no curl here
set -euo pipefail
trireme=$1
source=$2
command -v curl >/dev/null || { echo "skip: no curl"; exit 77; }
scale=${TRM_DEADLINE_SCALE:-1}
work=$(mktemp -d)
server=
end() {
    [ -z "$server" ] || kill -KILL "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap end EXIT
digits=$source/configs/demo/digits
cat >"$work/cluster.yaml" <<END
cluster: { threads: 1, device: cpu }
models:
  - { name: digits, path: "$digits/model.onnx" }
  - { name: sotu, path: "$source/configs/demo/tiny-sotu" }
  - { name: photos, path: "$source/tests/data/networks/resnet18/model.onnx" }
gateway: { listen: "127.0.0.1:0" }
END
OMP_WAIT_POLICY=passive TRM_PROBE=quick "$trireme" serve "$work/cluster.yaml" >"$work/log" 2>&1 &
server=$!
url=
for _ in $(seq $((600 * scale))); do
    url=$(sed -n 's/.*ready after.*\(http:[^ ,]*\).*/\1/p' "$work/log")
    [ -z "$url" ] || break
    kill -0 "$server" 2>/dev/null || { cat "$work/log"; echo "FAILED: it ended before it was ready"; exit 1; }
    sleep 0.1
done
[ -n "$url" ] || { cat "$work/log"; echo "FAILED: not ready"; exit 1; }

count=0
# want STATUS PATTERN PATH [CURL OPTIONS]: the body matches the extended regular expression
want() {
    local status=$1 pattern=$2 path=$3 got
    shift 3
    got=$(curl --silent --show-error --max-time $((60 * scale)) --write-out '\n%{http_code}' "$@" "$url$path")
    if [ "${got##*$'\n'}" != "$status" ] || ! grep -qE -- "$pattern" <<<"${got%$'\n'*}"; then
        cat "$work/log"
        echo "FAILED: $path: wanted $status $pattern, got ${got:0:600}"
        exit 1
    fi
    count=$((count + 1))
}

want 200 '"live": ?true|^' /health/live
want 200 '' /health/ready
want 200 '"version"' /version
want 200 '^# (HELP|TYPE) trireme_' /metrics
want 200 '<html' /
want 200 '"name":"trireme"' /v2
want 200 '"ready":true' /v2/health/ready
want 200 '"id": ?"digits"' /v1/models
want 200 '"name":"digits","versions":\["1"\]' /v2/models/digits
want 200 '"max_batch_size":' /v2/models/digits/config
want 200 '"status":"Healthy"' /ping

# every picture's label is its own
while IFS=, read -r file label; do
    [ "$file" != file ] || continue
    want 200 "^\{\"$label\":0\.[0-9]+,|^\{\"$label\":1\.0," /predictions/digits -T "$digits/images/$file"
    [ $count -lt 30 ] || break
done <"$digits/labels.csv"
want 200 '^\{"2":[^,]*,"3":[^,]*\}$' '/predictions/digits?top=2' --data-binary "@$digits/images/000.png" -H 'Content-Type: image/png'
want 200 '^\{"2":' /predictions/digits/1 -F "data=@$digits/images/000.png"
want 200 '^\{"[0-9]":' /predictions/photos -T "$source/tests/data/images/rgb444.jpg"
row=$(printf '0.5,%.0s' $(seq 32))
record=$(printf "[${row%,}],%.0s" $(seq 32))
want 200 '^\{"8":' /predictions/digits -H 'Content-Type: application/json' -d "{\"data\":[[[${record%,}]]]}"
want 200 '^\{"8":' /predictions/digits -d "{\"instances\":[[[${record%,}]]]}"
want 400 'the model wants|want' /predictions/digits -H 'Content-Type: application/json' -d '{"data":[1,2,3]}'
want 400 'neither a JPEG nor a PNG' /predictions/digits -H 'Content-Type: image/png' --data-binary hello
want 404 '"error":".*nothing' /predictions/nothing --data-binary hello -H 'Content-Type: image/png'
want 400 'top is' '/predictions/digits?top=-1' --data-binary hello -H 'Content-Type: image/png'

want 200 '"text_output":"' /v2/models/sotu/generate -d '{"text_input":"My fellow","parameters":{"max_tokens":8,"temperature":0}}'
want 200 '^data: \{"model_name":"sotu","model_version":"1","text_output":"' /v2/models/sotu/generate_stream \
    -d '{"text_input":"My fellow","max_tokens":8,"temperature":0}'
want 400 '"error":' /v2/models/sotu/generate -d '{"text_input":"a","no_such_setting":1}'
want 400 '"error":"no \\"text_input\\"' /v2/models/sotu/generate -d '{}'
want 400 'is no language model' /v2/models/digits/generate -d '{"text_input":"a"}'
want 404 '"error":' /v2/nothing
want 404 '"error":\{"message"' /v1/nothing
want 405 '"error":' /v2 -X DELETE
want 413 '"error":' /v2/models/digits/infer --data-binary @<(head -c 40000000 /dev/zero)

kill -TERM "$server"
wait "$server" || { cat "$work/log"; echo "FAILED: exit code $?"; exit 1; }
server=
echo "curl: $count requests were answered as they should"
