//! Rustup's own files, as on its update root: the version, the installer for one host, the bootstrap script.
//!
//! The programs are either scripts or real ones. `channel` makes toolchains.

use bytes::Bytes;

use crate::FakeUpstream;
use crate::channel::{DEFAULT_ROOT, HOST};
use crate::state::{File, Lifetime};

/// One release of rustup for one host, for [`FakeUpstream::release_rustup`].
#[derive(Clone, Debug)]
pub struct Installer {
    version: String,
    host: String,
    program: Bytes,
}

impl Installer {
    /// A script for [`HOST`] that prints its version, its variables and its arguments.
    pub fn new(version: &str) -> Self {
        let program = format!(
            "#!/bin/sh\n\
             echo \"rustup-init {version} dist=${{RUSTUP_DIST_SERVER-}} update=${{RUSTUP_UPDATE_ROOT-}} $*\"\n"
        );
        Self {
            version: version.to_owned(),
            host: HOST.to_owned(),
            program: program.into(),
        }
    }

    /// Sets another host.
    #[must_use]
    pub fn host(mut self, triple: &str) -> Self {
        self.host = triple.to_owned();
        self
    }

    /// Sets another program. Rustup's own file works: under the name `rustup-init` it is the installer.
    #[must_use]
    pub fn program(mut self, bytes: impl Into<Bytes>) -> Self {
        self.program = bytes.into();
        self
    }

    /// The request path of the newest installer.
    pub fn newest_path(&self) -> String {
        format!("/rustup/dist/{}/rustup-init", self.host)
    }

    /// The request path of the installer of this version.
    pub fn archive_path(&self) -> String {
        format!("/rustup/archive/{}/{}/rustup-init", self.version, self.host)
    }
}

impl FakeUpstream {
    /// Publishes a release of rustup below `rustup/`: `release-stable.toml`, the installer under both its names, the
    /// bootstrap script, each with its `.sha256`. Replaces the newest names in one step.
    pub fn release_rustup(&self, installer: &Installer) {
        let stable = format!("schema-version = '1'\nversion = '{}'\n", installer.version);
        let program = |lifetime| {
            File::new(
                installer.program.clone(),
                "application/octet-stream",
                lifetime,
            )
        };
        let text =
            |text: String, content_type| File::new(text.into(), content_type, Lifetime::Short);
        self.state().put_all(vec![
            (
                "/rustup/release-stable.toml".to_owned(),
                text(stable, "text/plain"),
            ),
            (installer.archive_path(), program(Lifetime::Immutable)),
            (installer.newest_path(), program(Lifetime::Short)),
            (
                "/rustup/rustup-init.sh".to_owned(),
                text(bootstrap_script(), "text/x-sh"),
            ),
        ]);
    }
}

/// A replacement of the bootstrap script. The places that larder edits are spelled as in the original: the default
/// update root, and the two calls of curl that require https.
pub fn bootstrap_script() -> String {
    SCRIPT.replace("@DEFAULT_ROOT@", DEFAULT_ROOT)
}

const SCRIPT: &str = r#"#!/bin/sh
# Stands in for the script that installs rustup: finds out the platform, downloads the installer, runs it.

set -u

# If RUSTUP_UPDATE_ROOT is unset or empty, default it.
RUSTUP_UPDATE_ROOT="${RUSTUP_UPDATE_ROOT:-@DEFAULT_ROOT@/rustup}"

main() {
    downloader --check
    _arch="$(architecture)" || return 1
    if [ "${RUSTUP_INIT_SH_PRINT-}" = arch ]; then
        echo "$_arch"
        return 0
    fi
    if [ "${RUSTUP_VERSION+set}" = 'set' ]; then
        _url="${RUSTUP_UPDATE_ROOT}/archive/${RUSTUP_VERSION}"
    else
        _url="${RUSTUP_UPDATE_ROOT}/dist"
    fi
    _url="${_url}/${_arch}/rustup-init"
    _dir="$(mktemp -d)" || return 1
    _file="${_dir}/rustup-init"
    echo 'info: downloading installer' >&2
    downloader "$_url" "$_file" "$_arch" && chmod u+x "$_file" && "$_file" "$@"
    _retval=$?
    rm -f "$_file"
    rmdir "$_dir"
    return "$_retval"
}

architecture() {
    case "$(uname -s) $(uname -m)" in
        'Linux x86_64') echo x86_64-unknown-linux-gnu ;;
        'Linux aarch64') echo aarch64-unknown-linux-gnu ;;
        'Darwin x86_64') echo x86_64-apple-darwin ;;
        'Darwin arm64') echo aarch64-apple-darwin ;;
        *) err 'unknown platform'; return 1 ;;
    esac
}

err() {
    echo "error: $1" >&2
}

# Downloads $1 to $2 for the platform $3.
downloader() {
    if command -v curl > /dev/null 2>&1; then
        _dld=curl
    elif command -v wget > /dev/null 2>&1; then
        _dld=wget
    else
        err 'need curl or wget'
        exit 1
    fi
    if [ "$1" = --check ]; then
        return 0
    fi
    _ciphersuites="${RUSTUP_TLS_CIPHERSUITES-}"
    if [ "$_dld" = curl ]; then
        _retry='--retry 3'
        if [ -n "$_ciphersuites" ]; then
            _err=$(curl $_retry --proto '=https' --tlsv1.2 --ciphers "$_ciphersuites" --silent --show-error --fail --location "$1" --output "$2" 2>&1)
            _status=$?
        else
            if ! check_help_for "$3" curl --proto --tlsv1.2; then
                _err=$(curl $_retry --silent --show-error --fail --location "$1" --output "$2" 2>&1)
                _status=$?
            else
                _err=$(curl $_retry --proto '=https' --tlsv1.2 --silent --show-error --fail --location "$1" --output "$2" 2>&1)
                _status=$?
            fi
        fi
    else
        _err=$(wget --https-only --secure-protocol=TLSv1_2 "$1" -O "$2" 2>&1)
        _status=$?
    fi
    if [ "$_status" -ne 0 ]; then
        err "$_err"
        err 'command failed: downloader'
    fi
    return "$_status"
}

# Returns whether the help of $2 knows all options after it.
check_help_for() {
    shift
    _cmd="$1"
    shift
    _help="$("$_cmd" --help all 2> /dev/null)"
    for _option in "$@"; do
        case "$_help" in
            *"$_option"*) ;;
            *) return 1 ;;
        esac
    done
}

main "$@"
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn script_requires_https_at_the_two_places_of_the_original() {
        let script = bootstrap_script();
        assert_eq!(script.matches("--proto '=https' ").count(), 2);
        let default = format!("\"${{RUSTUP_UPDATE_ROOT:-{DEFAULT_ROOT}/rustup}}\"");
        assert_eq!(script.matches(&default).count(), 1);
    }
}
