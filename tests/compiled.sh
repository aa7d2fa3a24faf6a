#!/bin/sh
# The tests of the data path once more, against the package as mypyc compiles it (setup.py), in a room of their own:
# may go on beside the other tests. Arguments go to pytest.
set -eu
cd "$(dirname "$0")/.."
python="$PWD/.venv/bin/python"
if ! command -v "${CC:-cc}" >/dev/null || ! "$python" -c 'import pathlib, sys, sysconfig
sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())'; then
    echo "not tested: the compiled build. It needs a C compiler and Python's headers (Debian: apt-get install gcc python3-dev)"
    exit 0
fi
rm -rf .compiled
mkdir .compiled
LLMPROXY_COMPILE=1 "$python" -m pip install --quiet --disable-pip-version-check --no-deps --target .compiled .
cp -r tests config docs pyproject.toml .compiled/
cd .compiled
# From here on `import llmproxy` finds the compiled one: the current directory comes first.
"$python" -c 'import sys, llmproxy.wire.relay as hot; sys.exit(not hot.__file__.endswith(".so"))'
# Left out: tests with doubles of the wire's own classes, which compiled code does not take for the real ones; and what is
# no matter of the data path (scaling, the emulator, calibration).
exec "$python" -m pytest -p no:cacheprovider tests/cancel tests/unit/pipeline tests/e2e tests/wire tests/property "$@" \
    --ignore tests/wire/test_answers_split.py --ignore tests/wire/test_relay_verdicts.py \
    --ignore tests/wire/test_relay_behind_a_head.py \
    --ignore tests/wire/test_connection_pool.py --ignore tests/property/test_framing_property.py \
    --ignore-glob 'tests/e2e/test_scaling*' --ignore-glob 'tests/e2e/test_emulator*' \
    --ignore-glob 'tests/property/test_scaling*' --ignore tests/property/test_tiers_property.py \
    --ignore tests/e2e/test_recommendations.py --ignore tests/e2e/test_calibrate.py \
    --deselect tests/e2e/test_backend_connections.py::test_a_fault_of_our_own_leaves_no_connection_behind
