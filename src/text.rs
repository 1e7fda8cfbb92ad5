//! What people read, from what is not made for them.

/// Two digits for each byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// File names and values may hold anything, line breaks included.
pub fn in_one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// Bytes as people write them.
pub fn in_units(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let unit = (bytes.max(1).ilog2() as usize / 10).min(UNITS.len() - 1);
    let decimals = if unit == 0 { 0 } else { 1 };
    format!("{:.decimals$} {}", bytes as f64 / (1u64 << (10 * unit)) as f64, UNITS[unit])
}

/// Whether a character is no letter of a name but an order to who shows it: control characters, line ends, and
/// what turns the direction of text.
pub fn moves_a_cursor(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns
}

/// As alike as clap wants it for its own suggestions.
const ALIKE_MIN: f64 = 0.7;

/// The most like one, if any is alike.
pub fn nearest<T: AsRef<str>>(text: &str, known: impl IntoIterator<Item = T>) -> Option<T> {
    let scored = known.into_iter().map(|known| (strsim::jaro(text, known.as_ref()), known));
    let best = scored.max_by(|(one, _), (other, _)| one.total_cmp(other));
    best.filter(|(score, _)| *score > ALIKE_MIN).map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_readable() {
        let table = [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1.0 KiB"),
            (1536 << 10, "1.5 MiB"),
            (24_683_656 << 10, "23.5 GiB"),
            (u64::MAX, "16777216.0 TiB"),
        ];
        for (bytes, text) in table {
            assert_eq!(in_units(bytes), text);
        }
    }
}
