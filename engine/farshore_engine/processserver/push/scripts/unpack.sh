# Checks the uploaded archive and unpacks it. Variables: ROOT, ID, SHA256. The bundle appears by a rename, complete and
# tried, or not at all. Exit codes: 65 the archive is damaged, 66 the bundle does not run here.
# shellcheck shell=sh disable=SC2154
set -eu
cd "$ROOT"
archive=.upload-$ID/bundle.tar.gz
partial=.partial-$ID
python() { "$partial/lib/ld-linux-x86-64.so.2" --library-path "$partial/lib" "$partial/bin/python3" -I "$@"; }

if command -v sha256sum >/dev/null 2>&1; then
    seen=$(sha256sum <"$archive" | cut -d ' ' -f 1)
else
    seen=later
fi
if [ "$seen" = later ] || [ "$seen" = "$SHA256" ]; then
    rm -rf "$partial"
    mkdir -m 755 "$partial"
    if ! tar -xzf "$archive" -C "$partial"; then
        rm -rf "$partial" ".upload-$ID"
        exit 65
    fi
fi
if [ "$seen" = later ]; then
    seen=$(python -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$archive")
fi
rm -rf ".upload-$ID"
if [ "$seen" != "$SHA256" ]; then
    echo "sha256 $seen, expected $SHA256" >&2
    rm -rf "$partial"
    exit 65
fi
if command -v selinuxenabled >/dev/null 2>&1 && selinuxenabled; then
    chcon -R -t bin_t "$partial/bin" "$partial/lib" || true
fi
if ! python -c 'import ssl, numpy, blake3, farshore_engine.agent' >&2; then
    rm -rf "$partial"
    exit 66
fi
sync -f "$partial" 2>/dev/null || sync
mv "$partial" "$ID"
