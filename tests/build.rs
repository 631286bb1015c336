//! Builds the kernel object whose instructions are counted.

fn main() {
    xtask::ebpf::embed_or_exit(&xtask::ebpf::FIREWALL);
}
