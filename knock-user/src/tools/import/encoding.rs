//! Decodes a file whose comments may be in Latin-1.

use crate::model::problem::Problem;

/// Decodes the bytes of a file: comments that are not UTF-8 are read as Latin-1.
///
/// # Errors
/// Returns the other lines that are not UTF-8.
pub(super) fn decode(bytes: &[u8]) -> Result<String, Vec<Problem>> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Ok(text.to_owned());
    }
    let mut text = String::with_capacity(bytes.len());
    let mut problems = Vec::new();
    for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        if index > 0 {
            text.push('\n');
        }
        match std::str::from_utf8(line) {
            Ok(line) => text += line,
            Err(_) if line.trim_ascii_start().starts_with(b"#") => {
                text.extend(line.iter().map(|&byte| char::from(byte)));
            }
            Err(_) => problems.push(Problem {
                line: Some(index + 1),
                key: String::new(),
                reason: "not UTF-8: convert the file, as with `iconv -f latin1 -t utf-8`"
                    .to_owned(),
            }),
        }
    }
    if problems.is_empty() {
        Ok(text)
    } else {
        Err(problems)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_may_be_latin_1() {
        /// The text, or the numbers of the bad lines.
        type Expected = Result<&'static str, &'static [usize]>;
        let rows: [(&str, &[u8], Expected); 5] = [
            ("ASCII", b"# f\n[a]\n", Ok("# f\n[a]\n")),
            ("UTF-8", "# für\n".as_bytes(), Ok("# für\n")),
            (
                "Latin-1 in a comment",
                b"  # f\xfcr\r\n[a]\n",
                Ok("  # für\r\n[a]\n"),
            ),
            (
                "in a value",
                b"# f\xfcr\n[a]\ncommand = f\xfcr\n",
                Err(&[3]),
            ),
            ("everywhere", b"[\xe4]\na=b\nc=\xff", Err(&[1, 3])),
        ];
        for (name, bytes, expected) in rows {
            let found = decode(bytes);
            let lines = |list: Vec<Problem>| -> Vec<usize> {
                list.into_iter()
                    .filter_map(|problem| problem.line)
                    .collect()
            };
            let expected = expected.map(str::to_owned).map_err(<[usize]>::to_vec);
            assert_eq!(found.map_err(lines), expected, "{name}");
        }
    }
}
