# The client on Android, in the form of termux-packages: packages/knock-client/build.sh. The release puts the address
# and the sum of the source archive in.
TERMUX_PKG_HOMEPAGE=https://knock.invalid
TERMUX_PKG_DESCRIPTION="Client of a port-knocking firewall: single packet authorization and sequences"
TERMUX_PKG_LICENSE="MIT, Apache-2.0"
TERMUX_PKG_LICENSE_FILE="LICENSE-MIT, LICENSE-APACHE"
TERMUX_PKG_MAINTAINER="@termux"
TERMUX_PKG_VERSION=0.1.0
TERMUX_PKG_SRCURL=https://knock.invalid/knock-$TERMUX_PKG_VERSION.tar.gz
TERMUX_PKG_SHA256=0000000000000000000000000000000000000000000000000000000000000000
TERMUX_PKG_BUILD_IN_SRC=true
TERMUX_PKG_AUTO_UPDATE=false

termux_step_make() {
	termux_setup_rust
	cargo build --jobs "$TERMUX_PKG_MAKE_PROCESSES" --target "$CARGO_TARGET_NAME" --release --package knock-client
}

termux_step_make_install() {
	install -Dm700 -t "$TERMUX_PREFIX/bin" "target/$CARGO_TARGET_NAME/release/knock-client"
}
