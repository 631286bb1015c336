//! Embeds the kernel object: the kept one if it was built from the sources beside this crate, else one that
//! `kernel-object` of the crate `xtask` builds.

#[cfg(feature = "object")]
mod embed;
#[cfg(feature = "object")]
mod kept;

fn main() {
    #[cfg(feature = "object")]
    embed::or_exit();
}
