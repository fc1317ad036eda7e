#!/bin/sh
# usage: language.sh TRIREME SOURCE_DIR CASE. Language models on the command line, as a careless or hostile user has them.
#   files     cut and damaged model files, wrong configurations: exit code 2 and one line that says what, no crash, no hang
#   options   options and prompts that make no sense
#   requests  bad lines among good ones; answers in OpenAI's forms
#   chat      lines from a pipe, a template from a file, a context that is full; output that cannot be written
set -u
trireme=$1 source=$2 case=$3
models=$source/tests/data/language/models demo=$source/configs/demo/tiny-sotu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export OMP_WAIT_POLICY=passive TRM_PROBE=quick TRM_CACHE="$dir"
bad=0

complain() {
    echo "FAILED: $*"
    head -c 2000 "$dir/out" "$dir/err"
    bad=1
}
# check NAME EXIT_CODE PATTERN COMMAND...: the exit code, and a line of standard output or error that matches. Exit code 2
# comes with one line of error, log lines apart, and nothing on standard output.
check() {
    name=$1 want=$2 pattern=$3
    shift 3
    got=0
    timeout 60 "$@" >"$dir/out" 2>"$dir/err" </dev/null || got=$?
    [ "$got" = "$want" ] || complain "$name: exit code $got, want $want"
    cat "$dir/out" "$dir/err" | grep -aqE -e "$pattern" || complain "$name: want a line like: $pattern"
    [ "$want" = 2 ] || return 0
    [ "$(grep -acvE '^[0-9-]{10}T[^ ]* W ' "$dir/err")" = 1 ] || complain "$name: want one line of error"
    [ ! -s "$dir/out" ] || complain "$name: want nothing on standard output"
}
# refused NAME FILE: a damaged model is refused, or if the damage does not matter, opened
refused() {
    got=0
    timeout 20 "$trireme" inspect "$2" >"$dir/out" 2>"$dir/err" </dev/null || got=$?
    case $got in
    0) ;;
    2) [ "$(grep -acvE '^[0-9-]{10}T[^ ]* W ' "$dir/err")" = 1 ] || complain "$1: want one line of error" ;;
    *) complain "$1: exit code $got" ;;
    esac
}
copy_of() { # copy_of MODEL: a folder of it, to be spoilt
    rm -rf "$dir/model"
    cp -R "$1" "$dir/model"
    chmod -R u+w "$dir/model"
}
edit() { # edit SED_COMMAND: of config.json
    sed "$1" "$dir/model/config.json" >"$dir/edited" && mv "$dir/edited" "$dir/model/config.json"
}
cuts() { # cuts FILE: 40 lengths, most of them within the header
    bytes=$(wc -c <"$1")
    awk -v n="$bytes" 'BEGIN {
        for (i = 0; i < 10; i++) print i
        for (i = 0; i < 24; i++) print int(8 + (i * i * i) % 6007) % n
        for (i = 1; i <= 5; i++) print int(n * i / 6)
        print n - 1 }'
}

case $case in
files)
    for file in "$models/llama-q8_0.gguf" "$models/bert-f16.gguf"; do
        for n in $(cuts "$file"); do
            head -c "$n" "$file" >"$dir/cut.gguf"
            check "$file cut to $n bytes" 2 '^trireme inspect: ' "$trireme" inspect "$dir/cut.gguf"
        done
        i=0
        while [ $i -lt 60 ]; do # eight bytes of 0xff, or of a number that is too large by a little, in the header
            cp "$file" "$dir/hit.gguf"
            chmod u+w "$dir/hit.gguf"
            printf '\377\377\377\377\377\377\377\177' | dd of="$dir/hit.gguf" bs=1 seek=$((4 + i * i)) conv=notrunc 2>/dev/null
            refused "$file, bytes at $((4 + i * i))" "$dir/hit.gguf"
            i=$((i + 1))
        done
    done
    copy_of "$models/qwen2"
    for n in $(cuts "$models/qwen2/model.safetensors"); do
        head -c "$n" "$models/qwen2/model.safetensors" >"$dir/model/model.safetensors"
        check "safetensors cut to $n bytes" 2 'model.safetensors' "$trireme" inspect "$dir/model"
    done
    i=0
    while [ $i -lt 40 ]; do
        cp "$models/qwen2/model.safetensors" "$dir/model/model.safetensors"
        printf '99999999' | dd of="$dir/model/model.safetensors" bs=1 seek=$((i * i)) conv=notrunc 2>/dev/null
        refused "safetensors, bytes at $((i * i))" "$dir/model"
        i=$((i + 1))
    done
    for n in 0 1 20 200 400; do
        copy_of "$models/qwen2"
        head -c $n "$models/qwen2/config.json" >"$dir/model/config.json"
        check "config.json cut to $n bytes" 2 'config.json' "$trireme" inspect "$dir/model"
    done

    copy_of "$models/qwen2"
    edit 's/Qwen2ForCausalLM/FooForCausalLM/'
    check "architecture" 2 "FooForCausalLM.*LlamaForCausalLM.*Qwen2ForCausalLM" "$trireme" run "$dir/model" --prompt x
    copy_of "$models/qwen2"
    edit 's/"num_hidden_layers": 3/"num_hidden_layers": 4/'
    check "a layer too many" 2 'layers.3' "$trireme" run "$dir/model" --prompt x
    edit 's/"num_hidden_layers": 4/"num_hidden_layers": 2000000000/'
    check "layers without end" 2 '^trireme run: ' "$trireme" run "$dir/model" --prompt x
    copy_of "$models/qwen2"
    edit 's/"hidden_size": 64/"hidden_size": 128/'
    check "shapes" 2 '\[.*64.*128|128.*64' "$trireme" run "$dir/model" --prompt x
    copy_of "$models/qwen2"
    edit 's/"num_attention_heads": 4/"num_attention_heads": 3/'
    check "heads" 2 '^trireme run: ' "$trireme" run "$dir/model" --prompt x
    copy_of "$models/qwen2"
    edit 's/"vocab_size": 256/"vocab_size": 300/'
    check "vocabulary" 2 '256.*300|300.*256' "$trireme" run "$dir/model" --prompt x
    copy_of "$demo"
    printf '{' >"$dir/model/tokenizer.json"
    check "tokenizer" 2 'tokenizer.json' "$trireme" run "$dir/model" --prompt x
    copy_of "$models/qwen2" # a tokenizer of another model
    cp "$demo/tokenizer.json" "$dir/model"
    check "tokenizer of another model" 2 '4096.*256|256.*4096' "$trireme" run "$dir/model" --prompt x

    mkdir "$dir/pt"
    cp "$models/qwen2/config.json" "$dir/pt"
    check "no weights" 2 'model.safetensors' "$trireme" run "$dir/pt" --prompt x
    touch "$dir/pt/pytorch_model.bin" "$dir/model.bin" "$dir/model.pt" "$dir/a.gguf" "$dir/a.safetensors"
    check "weights of PyTorch" 2 'pytorch_model.bin.*safetensors' "$trireme" run "$dir/pt" --prompt x
    check ".bin" 2 'wants a language model' "$trireme" run "$dir/model.bin" --prompt x
    check ".pt" 2 'wants a language model' "$trireme" run "$dir/model.pt" --prompt x
    check "empty .gguf" 2 'a.gguf' "$trireme" run "$dir/a.gguf" --prompt x
    check ".safetensors alone" 2 'config.json.*missing' "$trireme" run "$dir/a.safetensors" --prompt x
    cp "$models"/llama/*.json "$models"/llama/model-0000[12]* "$dir/pt"
    rm "$dir/pt/pytorch_model.bin"
    check "a part is missing" 2 'model-00003-of-00003.safetensors.*missing' "$trireme" run "$dir/pt" --prompt x
    check "not there" 2 "'/nonexistent'" "$trireme" run /nonexistent --prompt x
    check "chat, not there" 2 "'/nonexistent' does not exist" "$trireme" chat /nonexistent
    check "no language model" 2 'wants a language model' "$trireme" run "$source/configs/demo/digits" --prompt x
    check "chat, no language model" 2 'is no language model' "$trireme" chat "$source/configs/demo/digits"
    ;;
options)
    run() { # run NAME PATTERN OPTIONS...: refused
        name=$1 pattern=$2
        shift 2
        check "$name" 2 "^trireme run: .*$pattern" "$trireme" run "$demo" "$@"
    }
    run "no prompt" 'want --prompt TEXT or --prompt-file FILE'
    run "two prompts" 'want --prompt TEXT or' --prompt x --prompt-file "$demo/README.md"
    run "no prompt file" "'/nonexistent': no such file" --prompt-file /nonexistent
    run "a folder as prompt" 'no such file' --prompt-file "$dir"
    run "an image" 'is a language model' --image x.png
    run "labels" '--top is not for language models' --prompt x --top 3
    run "no tokens" 'the prompt has no tokens' --prompt "" --raw-prompt
    run "unknown option" "did you mean '--top-k'" --prompt x --top-x 3
    run "a value is missing" '--seed wants a value' --prompt x --seed
    run "context, too large" 'a context of 513 tokens: .* takes 1 to 512' --prompt x --context 513
    run "context, 0" '--context' --prompt x --context 0
    run "context, too small" 'the prompt has 3 tokens: the context is 2' --prompt hi --context 2
    run "cache" 'want at least 2097152 bytes' --prompt x --kv-cache 1KiB
    run "cache, no number" "--kv-cache 'x'" --prompt x --kv-cache x
    run "type of the cache" '--kv-dtype' --prompt x --kv-dtype int3
    export TRM_CUDA_DRIVER=/nonexistent/libcuda.so
    run "device" "no CUDA driver" --prompt x --device cuda
    unset TRM_CUDA_DRIVER
    run "dtype" 'fp32 or bf16' --prompt x --dtype fp16
    run "layout" 'takes 2 ranks, there are 1' --prompt x --parallel tensor=2
    run "layout, no number" '--parallel' --prompt x --parallel tensor=x
    run "template" "'/nonexistent': No such file" --prompt x --chat-template /nonexistent
    for row in 'temperature:-1' 'temperature:101' 'temperature:nan' 'temperature:hot' 'top-p:0' 'top-p:1.1' 'top-p:-1' 'top-k:-1' \
        'min-p:-0.1' 'min-p:1.5' 'typical-p:0' 'typical-p:-1' 'repetition-penalty:0' 'repetition-penalty:-2' 'presence-penalty:3' \
        'frequency-penalty:-3' 'seed:-1' 'seed:x' 'max-tokens:0' 'min-tokens:-1' 'logprobs:21' 'logprobs:-1' 'max-batch:0' \
        'step-tokens:0' 'decode-budget-ms:-1' 'stop:'; do
        pattern=$(echo "${row%%:*}" | tr - .)
        run "$row" "$pattern" --prompt x "--${row%%:*}" "${row#*:}"
    done
    run "least and most" 'min_tokens is 9, max_tokens 3' --prompt x --min-tokens 9 --max-tokens 3
    awk 'BEGIN { for (i = 0; i < 3000; i++) printf "word " }' >"$dir/long"
    run "a long prompt" 'the prompt has 300[0-9] tokens: the context is 512' --prompt-file "$dir/long"
    check "an encoder" 2 'no tokenizer' "$trireme" run "$models/bert" --prompt x
    check "chat, an encoder" 2 'is an encoder' "$trireme" chat "$models/bert"
    check "chat without a template" 2 'has no chat template: want --chat-template FILE' "$trireme" chat "$demo"
    printf '{{ open' >"$dir/open.jinja"
    check "a bad template" 2 'open.jinja: line 1: ' "$trireme" chat "$demo" --chat-template "$dir/open.jinja"
    printf '\377\376' >"$dir/bytes"
    check "a template of bytes" 2 'bytes: byte 0 is not UTF-8' "$trireme" chat "$demo" --chat-template "$dir/bytes"

    # types that the weights do not have
    bench() { # bench NAME PATTERN MODEL OPTIONS...
        name=$1 pattern=$2
        shift 2
        check "$name" 0 "$pattern" "$trireme" bench "$@" --prompt-tokens 4 --new-tokens 2 --rounds 1
    }
    bench "bf16 and f32" ' W .* dtype bf16 changes nothing: weights have another type, activations stay f32$' "$models/llama" --dtype bf16
    bench "bf16 and blocks" ' W .* dtype bf16 changes nothing: weights are quantised$' "$models/llama-q8_0.gguf" --dtype bf16
    bench "device and layout" '^device    [^ ].*; cache in f32$' "$demo" --dtype bf16
    grep -q ' W ' "$dir/err" && complain "bf16 and bf16: a warning"
    grep -q '^layout    data=1,tensor=1,pipeline=1$' "$dir/out" || complain "bench does not say its layout"
    bench "device as JSON" '"device":"[^"]+","layout":"data=1,tensor=1,pipeline=1","kv_dtype":"f32"' "$demo" --json

    # what is fine
    check "bytes that are no UTF-8" 0 '.' "$trireme" run "$demo" --prompt-file "$dir/bytes" --max-tokens 2
    check "an empty prompt" 0 '^Fellow-' "$trireme" run "$demo" --prompt "" --max-tokens 3
    : >"$dir/empty"
    check "an empty file" 0 '^Fellow-' "$trireme" run "$demo" --prompt-file "$dir/empty" --max-tokens 3
    check "the weights as model" 0 '^ and House' "$trireme" run "$demo/model.safetensors" --prompt "The Senate" --max-tokens 4
    check "log-probabilities" 0 '^ *[0-9]+  +-[0-9.]+  " and"   of -' "$trireme" run "$demo" --prompt "The Senate" --max-tokens 4 --logprobs 2
    "$trireme" run "$demo" --prompt x --max-tokens 40 --temperature 1 --seed 5 >"$dir/a" 2>"$dir/err"
    "$trireme" run "$demo" --prompt x --max-tokens 40 --temperature 1 --seed 5 --threads 2 >"$dir/b" 2>>"$dir/err"
    cmp "$dir/a" "$dir/b" || complain "the same seed gives another text"
    "$trireme" run "$demo" --prompt x --max-tokens 40 --temperature 1 >"$dir/b" 2>>"$dir/err"
    "$trireme" run "$demo" --prompt x --max-tokens 40 --temperature 1 >"$dir/c" 2>>"$dir/err"
    ! cmp -s "$dir/b" "$dir/c" || complain "no seed gives the same text twice"
    ;;
requests)
    cat >"$dir/in.jsonl" <<'END'
{"prompt": "The Senate", "max_tokens": 4}
{"prompt": "The Senate", "max_tokens": 4
nonsense

[1, 2]
{"prompt": 5}
{"prompt": "x", "foo": 1}
{"prompt": "x", "temperature": -1}
{"prompt": [1, 99999], "id": "ids"}
{"prompt": [10, 20, 30], "max_tokens": 2, "id": 17}
{"prompt": ["a", "b"], "max_tokens": 2, "n": 2}
{"messages": [{"role": "user", "content": "hi"}]}
{"input": "x"}
{"custom_id": "c1", "method": "POST", "url": "/v1/completions", "body": {"prompt": "We the people", "max_tokens": 3, "logprobs": 2, "echo": true}}
{"custom_id": "c2", "method": "POST", "url": "/v1/foo", "body": {"prompt": "We"}}
{"custom_id": "c3", "method": "POST", "url": "/v1/completions"}
{"prompt": "x", "prompt": "y"}
{"prompt": "x", "suffix": "y"}
{"prompt": "\ud800"}
{"text": "The Senate", "max_tokens": 4}
{"prompt": "x", "max_tokens": 3, "stop": ["s"], "include_stop_str_in_output": true}
{}
END
    line() { # line NUMBER PATTERN: of the output, from 1
        sed -n "$1p" "$dir/out.jsonl" | grep -aqE -e "$2" || complain "line $1 should be like $2: $(sed -n "$1p" "$dir/out.jsonl")"
    }
    check "bad lines" 0 '^21 records, 15 errors' "$trireme" score "$demo" --input "$dir/in.jsonl" --output "$dir/out.jsonl"
    grep -q "^first error: record '1': line 2: not JSON at column" "$dir/err" || complain "the first error is not named"
    line 1 '^{"index":0,"text":" and House of Representatives","finish_reason":"length","usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}$'
    line 2 '^{"index":1,"error":{"message":"line 2: not JSON .*","type":"invalid_request_error","param":null,"code":"bad file"}}$'
    line 3 'line 3: not JSON'
    line 4 'line 5: want a JSON object' # behind a blank line
    line 5 "'prompt': want text, token ids, or a list of either"
    line 6 "'foo' is no field of /v1/completions"
    line 7 'temperature is -1, wanted 0 to 100'
    line 8 '"id":"ids","error":.*from 0 to 4095'
    line 9 '^{"index":8,"id":17,"text":'
    line 10 '"choices":\[.*"index":3,'
    line 11 'has no chat template'
    line 12 'is for encoders'
    line 13 '^{"id":"batch_req_12","custom_id":"c1","response":{"status_code":200,"request_id":"req_12","body":{"id":"cmpl-12","object":"text_completion","created":[0-9]+,"model":"tiny-sotu","choices":\[.*"error":null}$'
    line 13 '"text":"We the people of the United","logprobs":{.*"text_offset":\[0,0,1,2,6,13,16,20\]},"finish_reason":"length"}\],"usage":'
    line 14 '"custom_id":"c2","response":{"status_code":400,.*"body":{"error":{.*"error":{"message"'
    line 15 'a batch line wants'
    line 16 'duplicate object key'
    line 17 "'suffix' is not done"
    line 18 'invalid Unicode'
    line 19 '"text":" and House of Representatives"'
    line 20 '"text":".*s","finish_reason":"stop","stop_reason":"s"'
    line 21 "'prompt': want"
    check "it exists" 2 'exists: --resume goes on with it' "$trireme" score "$demo" --input "$dir/in.jsonl" --output "$dir/out.jsonl"
    check "complete" 0 'is complete: 21 records' "$trireme" score "$demo" --input "$dir/in.jsonl" --output "$dir/out.jsonl" --resume
    check "other options" 2 '^trireme score: ' "$trireme" score "$demo" --input "$dir/in.jsonl" --output "$dir/out.jsonl" --resume --temperature 1 --seed 3
    printf 'bad\n{"prompt": 3}\n' >"$dir/bad.jsonl"
    check "all bad" 1 "all 2 records failed; the first: record '0': line 1: not JSON" "$trireme" score "$demo" --input "$dir/bad.jsonl" --output "$dir/o.jsonl"
    [ "$(grep -c 'not JSON' "$dir/err")" = 1 ] || complain "all bad: the reason is said more than once"
    : >"$dir/none.jsonl"
    check "no line" 2 'is empty: want one JSON object a line' "$trireme" score "$demo" --input "$dir/none.jsonl" --output "$dir/no.jsonl"
    printf 'The Senate\n\n\377\n' >"$dir/in.txt"
    check "a text file" 0 '^2 records, 1 errors' "$trireme" score "$demo" --input "$dir/in.txt" --output "$dir/out.jsonl" --overwrite --max-tokens 4
    line 1 '"text":" and House of Representatives"'
    line 2 'line 3: the text is not UTF-8'
    for output in o.csv o.npy o.txt; do
        check "output $output" 2 "$output': " "$trireme" score "$demo" --input "$dir/in.txt" --output "$dir/$output"
    done
    check "input images" 2 'wants .jsonl .* or .txt' "$trireme" score "$demo" --input "$source/configs/demo/digits/images" --output "$dir/no.jsonl"
    check "no input" 2 'does not exist' "$trireme" score "$demo" --input "$dir/nonexistent.jsonl" --output "$dir/no.jsonl"
    check "no model" 2 "model '/nonexistent' does not exist" "$trireme" score /nonexistent --input "$dir/in.txt" --output "$dir/no.jsonl"
    check "labels" 2 'not for language models' "$trireme" score "$demo" --input "$dir/in.txt" --output "$dir/no.jsonl" --top 3
    check "batch" 2 'want --max-batch' "$trireme" score "$demo" --input "$dir/in.txt" --output "$dir/no.jsonl" --batch 3
    [ ! -e "$dir/no.jsonl" ] || complain "a refused job left an output"

    # embeddings
    printf '%s\n' '{"input": [1, 2, 3]}' '{"input": [[1, 2], [3]]}' '{"custom_id": "e", "url": "/v1/embeddings", "body": {"input": [5, 6]}}' \
        '{"input": [7], "encoding_format": "base64"}' '{"prompt": "x"}' >"$dir/in.jsonl"
    check "embeddings" 0 '^5 records, 1 errors' "$trireme" score "$models/bert" --input "$dir/in.jsonl" --output "$dir/out.jsonl" --overwrite
    line 1 '^{"index":0,"embedding":\[-?[0-9.]+,.*\],"usage":{"prompt_tokens":3,"total_tokens":3}}$'
    line 2 '^{"index":1,"data":\[{"object":"embedding","index":0,"embedding":\['
    line 3 '"body":{"object":"list","model":"bert","data":\[{"object":"embedding","index":0,"embedding":\[.*"usage":{"prompt_tokens":2,"total_tokens":2}}},"error":null}$'
    line 4 '"embedding":"[A-Za-z0-9+/]+=*"'
    line 5 'is an encoder: /v1/completions is for models that generate'
    check "embeddings as rows" 0 "^5 records, 2 errors" "$trireme" score "$models/bert" --input "$dir/in.jsonl" --output "$dir/out.npy"
    head -c 100 "$dir/out.npy" | grep -aq "'shape': (5, 64)" || complain "out.npy is not of shape (5, 64)"
    ;;
chat)
    cat >"$dir/chat.jinja" <<'END'
{%- for m in messages %}{{ {'system': '', 'user': 'Q: ', 'assistant': 'A: '}[m.role] + m.content + '\n' }}{% endfor -%}
{%- if add_generation_prompt %}A:{% endif -%}
END
    talk() { # talk OPTIONS...: standard input to answers in $dir/out
        got=0
        timeout 60 "$trireme" chat "$demo" --chat-template "$dir/chat.jinja" "$@" >"$dir/out" 2>"$dir/err" || got=$?
        [ "$got" = 0 ] || complain "chat $*: exit code $got"
    }
    printf 'hello\n/reset\n\nhello\r\n/exit\nnot read\n' | talk --max-tokens 8 --ignore-eos
    [ "$(head -n "$(($(wc -l <"$dir/out") / 2))" "$dir/out")" = "$(tail -n "$(($(wc -l <"$dir/out") / 2))" "$dir/out")" ] || complain "/reset does not begin anew"
    printf 'hello' | talk --max-tokens 8 --ignore-eos # no end of line
    [ -s "$dir/out" ] || complain "the last line is not answered"
    # what chat sends is what the template makes of the conversation
    "$trireme" run "$demo" --raw-prompt --prompt "Be brief.
Q: hello
A:" --max-tokens 12 --stop "never" >"$dir/run" 2>"$dir/err"
    printf 'hello\n' | talk --system "Be brief." --max-tokens 12
    cmp "$dir/run" "$dir/out" || complain "chat and run differ"
    printf 'bad \377 line\ngood\n' | talk --max-tokens 8
    grep -q '^the line is not UTF-8' "$dir/err" || complain "a line that is no UTF-8"
    awk 'BEGIN { for (i = 0; i < 12; i++) print "question number " i " about the tariff and the navy of the nation"
                 for (i = 0; i < 700; i++) printf "word "
                 print "\nafter" }' | talk --max-tokens 60
    grep -q 'the context is full: the oldest turn is forgotten' "$dir/err" || complain "no turn was forgotten"
    [ "$(grep -c 'the prompt has .* tokens: the context is 512' "$dir/err")" = 1 ] || complain "a long question is not refused, or the next one"
    talk </dev/null
    [ ! -s "$dir/out" ] || complain "an answer to nothing"

    # text comes as it is made, into a pipe too; who reads no more ends the program
    "$trireme" run "$demo" --prompt x --max-tokens 400 --temperature 1 --seed 1 2>"$dir/err" | head -c 5 >"$dir/out"
    [ "$(wc -c <"$dir/out")" = 5 ] || complain "five bytes of a text"
    if [ -e /dev/full ]; then
        for command in "run $demo --prompt x --max-tokens 20" "run $demo --prompt x --max-tokens 4 --logprobs 1"; do
            got=0
            # shellcheck disable=SC2086
            timeout 60 "$trireme" $command >/dev/full 2>"$dir/err" || got=$?
            [ "$got" = 1 ] && grep -q 'standard output cannot be written' "$dir/err" || complain "$command to a full disk: $got"
        done
        got=0
        echo x | timeout 60 "$trireme" chat "$demo" --chat-template "$dir/chat.jinja" --max-tokens 5 >/dev/full 2>"$dir/err" || got=$?
        [ "$got" = 1 ] || complain "chat to a full disk: $got"
        ln -s /dev/full "$dir/full.jsonl"
        echo x >"$dir/in.txt"
        check "score to a full disk" 1 'No space left' "$trireme" score "$demo" --input "$dir/in.txt" --output "$dir/full.jsonl" --overwrite --max-tokens 3
    fi
    ;;
*)
    echo "language.sh: unknown case '$case'" >&2
    exit 2
    ;;
esac
exit $bad
