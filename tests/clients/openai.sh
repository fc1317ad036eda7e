#!/usr/bin/env bash
# The openai package, installed into a virtual environment of BUILD_DIR, against trireme serve.
# usage: openai.sh TRIREME SOURCE_DIR BUILD_DIR [CASE...]; OPENAI_PACKAGE: another version of it.
# Skips (77) where neither a registry can be reached nor an environment is there from before.
set -uo pipefail
trireme=${1:?usage: openai.sh TRIREME SOURCE_DIR BUILD_DIR [CASE...]} source=$2 build=$3
shift 3
package=${OPENAI_PACKAGE:-openai==3.57.0}
venv=$build/venv-$package
if [ ! -e "$venv/done" ]; then
    if ! { python3 -m venv "$venv" &&
        "$venv/bin/pip" install -q --retries 1 --timeout 20 --disable-pip-version-check "$package"; } >"$build/venv-openai.log" 2>&1; then
        echo "PyPI's $package could not be installed (offline?): skipped"
        tail -n 3 "$build/venv-openai.log"
        exit 77
    fi
    touch "$venv/done"
fi
exec "$venv/bin/python" "$source/tests/clients/openai_client.py" "$trireme" "$source" "$@"
