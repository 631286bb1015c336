//! Removes the debug information of a kernel object, which is most of its size and which nothing loads.
//!
//! Types stay, because the kernel needs them; source lines are in the object with debug information only.

use super::btf_ext;
use anyhow::{Context as _, Result, ensure};
use object::{
    build::elf::{Builder, SectionData},
    elf,
};

/// The section with what belongs to instructions: functions, source lines, relocations.
const BTF_EXT: &[u8] = b".BTF.ext";
/// The section that names the compiler, for tests that compare sizes.
const COMPILER: &str = ".comment";

/// Returns the object without debug information and source lines, and with a section that names its compiler.
///
/// # Errors
/// It is not an ELF file with relocations that this can write.
pub(super) fn strip(elf: &[u8], compiler: &str) -> Result<Vec<u8>> {
    let mut builder = Builder::read(elf).context("not an ELF file")?;
    for section in &mut builder.sections {
        let name = section.name.to_vec();
        let name = name.strip_prefix(b".rel").unwrap_or(&name);
        // The linker has applied the relocations of `.BTF.ext`, most of which are about lines.
        let is_applied = name == BTF_EXT && name.len() < section.name.len();
        section.delete = name.starts_with(b".debug") || is_applied;
        if let SectionData::Data(data) = &section.data
            && name == BTF_EXT
        {
            let data = btf_ext::without_lines(data.as_slice());
            section.data = SectionData::Data(data.context("reading .BTF.ext")?.into());
        }
    }
    builder.delete_orphans();
    builder.delete_orphan_symbols();
    let mut text = compiler.as_bytes().to_vec();
    text.push(0);
    let section = builder.sections.add();
    section.name = COMPILER.as_bytes().into();
    section.sh_type = elf::SHT_PROGBITS;
    section.sh_addralign = 1;
    section.data = SectionData::Data(text.into());
    let shares_names = !builder
        .sections
        .iter()
        .any(|section| matches!(section.data, SectionData::SectionString));
    if shares_names {
        // LLVM writes names of sections and symbols into one table; the builder keeps two.
        let section = builder.sections.add();
        section.name = b".shstrtab"[..].into();
        section.sh_type = elf::SHT_STRTAB;
        section.sh_addralign = 1;
        section.data = SectionData::SectionString;
    }
    let mut stripped = Vec::new();
    builder
        .write(&mut stripped)
        .context("writing an ELF file")?;
    ensure!(stripped.len() < elf.len(), "it had no debug information");
    Ok(stripped)
}
