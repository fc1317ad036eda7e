# shellcheck shell=bash
# Sourced by the tests of real clients: client_python FOLDER PACKAGE... makes a virtual environment in FOLDER, or finds the one
# of an earlier run, and sets `python`. Ends the script with 77 (skipped) where there is no Python or the packages cannot be had.
client_python() {
    local folder=$1
    shift
    # shellcheck disable=SC2034 # of the script that sources this
    python=$folder/bin/python
    [ -f "$folder/done" ] && [ "$(cat "$folder/done")" = "$*" ] && return
    command -v python3 >/dev/null || { echo "skip: no python3"; exit 77; }
    rm -rf "$folder"
    if ! python3 -m venv "$folder" >/dev/null 2>&1; then
        echo "skip: python3 has no venv"
        exit 77
    fi
    if ! "$folder/bin/pip" install --quiet --disable-pip-version-check --retries 1 --timeout 20 "$@" >"$folder/pip.log" 2>&1; then
        tail -n 3 "$folder/pip.log"
        echo "skip: cannot install $* (is a package registry reachable?)"
        exit 77
    fi
    echo "$*" >"$folder/done"
}
