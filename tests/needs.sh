#!/bin/sh
# Programs that some tests use beside the Python packages. Installs what is missing where it can (root on Debian),
# and says plainly what stays out and how to get it; the tests that need it say so too.
missing=""
for program in redis-server:redis-server promtool:prometheus; do
    command -v "${program%%:*}" >/dev/null 2>&1 || missing="$missing ${program##*:}"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing$missing ..."
    if { apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing; } >/tmp/llmproxy-needs.log 2>&1; then
        exit 0
    fi
    echo "could not install$missing (see /tmp/llmproxy-needs.log)"
fi
echo "not installed:$missing. Tests that need them are skipped. On Debian or Ubuntu: sudo apt-get install$missing"
exit 0
