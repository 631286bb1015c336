//! Builds the kernel object that the crate embeds, with the function behind `cargo xtask build-ebpf`.

fn main() {
    #[cfg(feature = "object")]
    if let Err(error) = xtask::ebpf::embed() {
        for line in format!("{error:#}").lines() {
            println!("cargo::error={line}");
        }
        std::process::exit(1);
    }
}
