//! Builds the programs that the firewall is measured against, as `cargo xtask build-ebpf` builds its own.

fn main() {
    xtask::ebpf::embed_or_exit(&xtask::ebpf::BASELINES);
}
