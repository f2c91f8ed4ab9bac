# Makes room for an upload. Variables: ROOT, ID (of the bundle), OWNER (who uploads). Prints `present` or `upload`.
# shellcheck shell=sh disable=SC2154
set -eu
if [ -f "$ROOT/$ID/bundle.json" ]; then
    echo present # it was renamed into place when it was complete, so it is
    exit 0
fi
rm -rf "$ROOT/.upload-$ID"
mkdir -m 700 "$ROOT/.upload-$ID"
chown "$OWNER" "$ROOT/.upload-$ID"
echo upload
