//! How much memory something may take.

use std::fmt;
use std::str::FromStr;

/// How much the whole relay, or its cache, may take: `8GiB`, `512MB`, `1500000000`, or `75%` of what
/// there is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Capacity {
    /// Never zero.
    Bytes(u64),
    /// Above 0, at most 100.
    Percent(f64),
}

impl Capacity {
    /// The capacity where the process may use `memory` bytes.
    pub fn bytes(self, memory: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => (memory as f64 * percent / 100.0) as u64,
        }
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CapacityError {
    #[error("not a size; write 8GiB, 512MB, 1500000000 or 25%")]
    NotASize,
    #[error(
        "{0:?} is not a unit; write KiB, MiB, GiB or TiB, KB, MB, GB or TB, or % of the memory"
    )]
    Unit(String),
    #[error("more than there is; write 1% to 100%")]
    MoreThanAll,
    #[error(
        "0 may mean nothing or no bound, and there is neither; write 64MiB for little or 75% for much"
    )]
    Zero,
}

impl FromStr for Capacity {
    type Err = CapacityError;

    fn from_str(text: &str) -> Result<Self, CapacityError> {
        let text = text.trim();
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let (number, unit) = text.split_at(text.find(|c| !is_number(c)).unwrap_or(text.len()));
        let number: f64 = number.parse().map_err(|_| CapacityError::NotASize)?;
        let unit = unit.trim_start();
        let factor = match unit.to_ascii_lowercase().as_str() {
            "%" if number == 0.0 => return Err(CapacityError::Zero),
            "%" if number > 100.0 => return Err(CapacityError::MoreThanAll),
            "%" => return Ok(Self::Percent(number)),
            "" | "b" => 1.0,
            "k" | "kb" => 1e3,
            "m" | "mb" => 1e6,
            "g" | "gb" => 1e9,
            "t" | "tb" => 1e12,
            "kib" | "ki" => (1u64 << 10) as f64,
            "mib" | "mi" => (1u64 << 20) as f64,
            "gib" | "gi" => (1u64 << 30) as f64,
            "tib" | "ti" => (1u64 << 40) as f64,
            _ => return Err(CapacityError::Unit(unit.to_owned())),
        };
        match (number * factor) as u64 {
            0 => Err(CapacityError::Zero),
            bytes => Ok(Self::Bytes(bytes)),
        }
    }
}

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{bytes}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_capacity(text: &str, expect: Result<Capacity, CapacityError>) {
        let got = text.parse::<Capacity>();
        assert_eq!(got, expect, "{text:?}");
        if let Ok(capacity) = got {
            assert_eq!(capacity.to_string().parse(), Ok(capacity), "{text:?} shown as {capacity}");
        }
    }

    #[test]
    fn capacities() {
        use Capacity::{Bytes, Percent};
        check_capacity("1500000000", Ok(Bytes(1_500_000_000)));
        check_capacity("1", Ok(Bytes(1)));
        check_capacity("64B", Ok(Bytes(64)));
        for (unit, bytes) in [("KB", 1000), ("MB", 1_000_000), ("GB", 1_000_000_000)] {
            check_capacity(&format!("3{unit}"), Ok(Bytes(3 * bytes)));
        }
        for (unit, bytes) in [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)] {
            check_capacity(&format!("3{unit}"), Ok(Bytes(3 * bytes)));
        }
        check_capacity("2TB", Ok(Bytes(2_000_000_000_000)));
        check_capacity("2TiB", Ok(Bytes(2 << 40)));
        check_capacity("2kB", Ok(Bytes(2000)));
        check_capacity("8G", Ok(Bytes(8_000_000_000)));
        check_capacity("2gib", Ok(Bytes(2 << 30)));
        check_capacity("2Gi", Ok(Bytes(2 << 30)));
        check_capacity(" 1.5 GiB ", Ok(Bytes(3 << 29)));
        check_capacity("99999999999999999999TiB", Ok(Bytes(u64::MAX)));
        check_capacity("75%", Ok(Percent(75.0)));
        check_capacity("12.5 %", Ok(Percent(12.5)));
        check_capacity("100%", Ok(Percent(100.0)));
        check_capacity("100.1%", Err(CapacityError::MoreThanAll));
        for zero in ["0", "0%", "0GiB", "0.0", "0.0001KB"] {
            check_capacity(zero, Err(CapacityError::Zero));
        }
        for garbage in ["", " ", "%", "GiB", ".", "1.2.3", "-1GiB", "inf", "nan%", "½GiB"] {
            check_capacity(garbage, Err(CapacityError::NotASize));
        }
        for unit in ["PB", "Gb/s", "GiB 1", "e9", "%%"] {
            check_capacity(&format!("8{unit}"), Err(CapacityError::Unit(unit.to_owned())));
        }
    }

    #[test]
    fn capacity_of_this_memory() {
        assert_eq!(Capacity::Bytes(5).bytes(3), 5);
        assert_eq!(Capacity::Percent(25.0).bytes(4 << 30), 1 << 30);
        assert_eq!(Capacity::Percent(100.0).bytes(24_683_656 << 10), 24_683_656 << 10);
    }
}
