//! Builds the kernel object that the crate embeds, with the function behind `cargo xtask build-ebpf`.

fn main() {
    #[cfg(feature = "object")]
    xtask::ebpf::embed_or_exit(&xtask::ebpf::FIREWALL);
}
