# The first process of the system: mounts it, becomes part of it, runs one command line.
# `cargo xtask fresh` puts variables before it: ROOT (an empty directory), SYSTEM and CRATES (options of overlays),
# RUSTUP and CARGO (the host's directories of these).

mount -t overlay system -o "$SYSTEM" "$ROOT"
cd "$ROOT"
mkdir -p root/.rustup root/.cargo/bin root/.cargo/registry etc/ssl/certs host
mount -t overlay crates -o "$CRATES" root/.cargo/registry
# Only the default toolchain, since a new contributor may have no nightly. rustup may install one.
default=$(sed -n 's/^default_toolchain = "\(.*\)"/\1/p' "$RUSTUP/settings.toml")
mkdir -p "root/.rustup/toolchains/$default"
cp "$RUSTUP/settings.toml" root/.rustup/
mount --bind "$RUSTUP/toolchains/$default" "root/.rustup/toolchains/$default"
mount -o remount,bind,ro "root/.rustup/toolchains/$default"
# Without the programs that `cargo install` put beside them.
cp -a "$CARGO/bin/rustup" root/.cargo/bin/
for proxy in cargo rustc rustdoc rustfmt cargo-fmt cargo-clippy clippy-driver; do
    ln -sf rustup "root/.cargo/bin/$proxy"
done
[ ! -f "$CARGO/config.toml" ] || cp -L "$CARGO/config.toml" root/.cargo/
# Certificates of a proxy in between.
cp -rL /etc/ssl/certs/. etc/ssl/certs/ 2>/dev/null || true
cp -L /etc/resolv.conf etc/resolv.conf 2>/dev/null || true
cp -L /etc/hosts etc/hosts 2>/dev/null || true

mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t bpf bpf sys/fs/bpf
mount -t cgroup2 cgroup sys/fs/cgroup 2>/dev/null || true
mount --rbind /dev dev
mount -t tmpfs -o mode=755 run run
mount -t tmpfs -o mode=1777 tmp tmp
mkdir run/lock

pivot_root . host
cd /
umount --lazy /host
unset ROOT SYSTEM RUSTUP CRATES CARGO OLDPWD
hostname pristine || true
export HOME=/root
export PATH="$HOME/.cargo/bin:$PATH"
cd /root/knock
# Not exec: the first process stays and reaps orphans.
sh -euc "$1" </dev/null
