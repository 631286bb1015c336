//! Builds the kernel object, for its size, and the programs that it is measured against.

fn main() {
    xtask::ebpf::embed_or_exit(&xtask::ebpf::FIREWALL);
    xtask::ebpf::embed_or_exit(&xtask::ebpf::BASELINES);
}
