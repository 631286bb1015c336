//! Subcommands that touch no kernel: `check`, `generate`, `keygen`, `import-knockd`,
//! `import-fwknop`, `completions`.
//!
//! May use `config` and the rooms below it. Must not know the running program.

pub mod check;
pub mod completions;
pub mod generate;
pub mod import;
pub mod import_fwknop;
pub mod keygen;
pub mod toml_text;
