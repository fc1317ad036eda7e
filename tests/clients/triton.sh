#!/usr/bin/env bash
# The package tritonclient[http], unmodified, against trireme serve (triton_client.py says what is looked at).
# usage: triton.sh TRIREME SOURCE_DIR BUILD_DIR     77: skipped, the package cannot be had
set -euo pipefail
here=$(dirname "$0")
# shellcheck source=tests/clients/venv.sh
. "$here/venv.sh"
client_python "$3/clients-triton" 'tritonclient[http]' numpy
exec "$python" "$here/triton_client.py" "$1" "$2"
