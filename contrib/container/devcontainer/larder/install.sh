#!/bin/sh
# Makes cargo and rustup of a dev container use a larder on the host. The builder runs this as root, and passes the
# option as URL, the container's user as _REMOTE_USER and that user's home as _REMOTE_USER_HOME. DESTDIR is for tests.
set -eu
url="${URL:-http://host.docker.internal:3263}"
url="${url%/}"
case "$url" in
http://* | https://*) ;;
*)
    echo "larder: the option \`url\` must be an address such as http://host.docker.internal:3263, not $url" >&2
    exit 1
    ;;
esac

home="${CARGO_HOME:-${_REMOTE_USER_HOME:-$HOME}/.cargo}"
settings="$home/config.toml"
if grep -qs '^\[source\.crates-io\]' "$settings"; then
    echo "larder: $settings replaces crates.io already; remove that or this feature" >&2
    exit 1
fi
if [ ! -d "$home" ]; then
    mkdir -p "$home"
    if [ -n "${_REMOTE_USER:-}" ]; then
        chown "$_REMOTE_USER" "$home"
    fi
fi
cat >>"$settings" <<EOF
[source.crates-io]
replace-with = "larder"

[registries.larder]
index = "sparse+$url/"
EOF
chmod a+r "$settings"

# Read by login shells, and so by the tools that take the environment from one.
mkdir -p "${DESTDIR:-}/etc/profile.d"
cat >"${DESTDIR:-}/etc/profile.d/larder.sh" <<EOF
export RUSTUP_DIST_SERVER=$url
export RUSTUP_UPDATE_ROOT=$url/rustup
EOF
