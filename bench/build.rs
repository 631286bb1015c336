//! Builds the programs that the kernel object is measured against.

fn main() {
    xtask::ebpf::embed_or_exit(&xtask::ebpf::BASELINES);
}
