//! Texts that people write and the mesh repeats: names and armour.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::limits::NAME_MAX;

/// Whether a name is fit for tables, paths and logs: letters, digits and `._-/@`, not empty, within its bound.
pub fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_MAX
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | '@'))
}

/// Wraps bytes in lines of base64 between `BEGIN` and `END`.
pub fn armour(label: &str, bytes: &[u8]) -> String {
    let mut out = format!("-----BEGIN {label}-----\n");
    let text = STANDARD.encode(bytes);
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = tail;
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

/// Finds one armoured block; gives its bytes and the text behind it.
pub fn dearmour<'a>(label: &str, text: &'a str) -> Option<(Vec<u8>, &'a str)> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let (_, inside) = text.split_once(&begin)?;
    let (inside, behind) = inside.split_once(&end)?;
    let packed: String = inside.split_ascii_whitespace().collect();
    Some((STANDARD.decode(packed).ok()?, behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn armour_reads_back_and_keeps_what_follows() {
        let text = format!("{}behind", armour("THING", &[7; 100]));
        assert_eq!(dearmour("THING", &text), Some((vec![7; 100], "\nbehind")));
        assert_eq!(dearmour("OTHER", &text), None);
    }

    #[test]
    fn names_are_plain_and_bounded() {
        assert!(is_name("web/tls-key.pem@v1_2"));
        for bad in ["", "a b", "a\nb", "é", "a\u{202e}b"] {
            assert!(!is_name(bad), "{bad:?}");
        }
        assert!(!is_name(&"a".repeat(NAME_MAX + 1)));
    }
}
