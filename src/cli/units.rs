//! Sizes, rates and durations as people write and read them.

use std::time::Duration;

use super::text::escape;

/// Parses `16MiB`, `1.5GB`, `64k`, `4096`. Without a unit: bytes. A bare `K`/`M`/`G` is binary, as
/// everywhere in buffer sizes; `kB`, `MB`, `GB` are decimal, as in the standard.
pub fn parse_size(text: &str) -> Result<u64, String> {
    const EXAMPLES: &str = "write a size such as 65536, 512KiB, 16MiB or 1GB";
    let (number, unit) = split_unit(text, EXAMPLES)?;
    let scale: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "t" | "tib" => 1 << 40,
        "tb" => 1_000_000_000_000,
        _ => return Err(format!("`{}` is no unit of size; {EXAMPLES}", escape(unit))),
    };
    scaled(number, scale).ok_or_else(|| not_scaled(number, EXAMPLES))
}

/// Parses `20mbit`, `1.5gbit/s`, `500kbit` into bytes a second. The unit is required, and in bits:
/// what `20M` or `20mbps` means depends on whom you ask.
pub fn parse_rate(text: &str) -> Result<u64, String> {
    const EXAMPLES: &str = "write a rate such as 500kbit, 20mbit or 1.5gbit (a second)";
    let (number, unit) = split_unit(text, EXAMPLES)?;
    let lower = unit.to_ascii_lowercase();
    let scale: u64 = match lower.strip_suffix("/s").unwrap_or(&lower) {
        "bit" => 1,
        "kbit" => 1_000,
        "mbit" => 1_000_000,
        "gbit" => 1_000_000_000,
        "" => return Err(format!("`{}` has no unit; {EXAMPLES}", escape(number))),
        _ => return Err(format!("`{}` is no unit of rate; {EXAMPLES}", escape(unit))),
    };
    let bits = scaled(number, scale);
    bits.map(|bits| bits / 8).ok_or_else(|| not_scaled(number, EXAMPLES))
}

/// Parses `120`, `1.5s`, `250ms`, `2m`, `1h`, `7d`. Without a unit: seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const EXAMPLES: &str = "write a time such as 120, 1.5s, 250ms, 2m, 1h or 7d";
    let (number, unit) = split_unit(text, EXAMPLES)?;
    let scale_us: u64 = match unit.to_ascii_lowercase().as_str() {
        "ms" => 1_000,
        "" | "s" => 1_000_000,
        "m" | "min" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return Err(format!("`{}` is no unit of time; {EXAMPLES}", escape(unit))),
    };
    scaled(number, scale_us).map(Duration::from_micros).ok_or_else(|| not_scaled(number, EXAMPLES))
}

/// `16.0 MiB`, for amounts of data.
pub fn bytes(amount: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    if amount < 1024 {
        return format!("{amount} B");
    }
    let mut value = amount as f64;
    let mut unit = 0;
    // 1023.95 would be shown as "1024.0": go to the next unit before that.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `94.3 Mbit/s`: network rates are decimal bits. `bytes_per_second` that is not a number or not
/// finite is shown as `-`.
pub fn rate(bytes_per_second: f64) -> String {
    const UNITS: [&str; 4] = ["bit/s", "kbit/s", "Mbit/s", "Gbit/s"];
    if !bytes_per_second.is_finite() || bytes_per_second < 0.0 {
        return "-".to_owned();
    }
    let mut value = bytes_per_second * 8.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{value:.0} {}", UNITS[0])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// Bytes a second over `elapsed`; 0 when no time has passed.
pub fn per_second(amount: u64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() { 0.0 } else { amount as f64 / elapsed.as_secs_f64() }
}

/// `850 ms`, `12.3 s`, `2 min 05 s`, `1 h 02 min`.
pub fn duration(time: Duration) -> String {
    let ms = time.as_millis();
    if ms < 1_000 {
        return format!("{ms} ms");
    }
    if ms < 59_950 {
        return format!("{:.1} s", time.as_secs_f64());
    }
    let seconds = (ms + 500) / 1_000;
    if seconds < 3_600 {
        return format!("{} min {:02} s", seconds / 60, seconds % 60);
    }
    let minutes = (seconds + 30) / 60;
    format!("{} h {:02} min", minutes / 60, minutes % 60)
}

/// The number that a text begins with, and the rest.
fn split_unit<'a>(text: &'a str, examples: &str) -> Result<(&'a str, &'a str), String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    match text.split_at(end) {
        ("", "") => Err(format!("the value is missing; {examples}")),
        ("", rest) if rest.starts_with('-') => {
            Err(format!("`{}` is less than nothing; {examples}", escape(text)))
        }
        ("", _) => Err(format!("`{}` does not begin with a number; {examples}", escape(text))),
        (number, unit) => Ok((number, unit.trim_start())),
    }
}

/// Why [`scaled`] rejects `number`.
fn not_scaled(number: &str, examples: &str) -> String {
    let shown = escape(number);
    match scaled(number, 0) {
        Some(_) => format!("`{shown}` is too large; {examples}"),
        None if number.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("`{shown}` is too large; {examples}")
        }
        None => format!("`{shown}` is no number; {examples}"),
    }
}

/// `number` (digits, at most one point) times `scale`, exact for whole numbers; None if it is not
/// such a number or does not fit.
fn scaled(number: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    // Nine decimals are more than any unit here resolves.
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let mut total = whole.parse::<u64>().ok()?.checked_mul(scale)?;
    if !fraction.is_empty() {
        let parts = u128::from(fraction.parse::<u64>().ok()?) * u128::from(scale);
        let extra = parts / 10u128.pow(u32::try_from(fraction.len()).ok()?);
        total = total.checked_add(u64::try_from(extra).ok()?)?;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("0", 0),
            ("4096", 4096),
            ("4096B", 4096),
            ("64k", 65_536),
            ("64 KiB", 65_536),
            ("64kB", 64_000),
            ("16MiB", 16 << 20),
            ("16m", 16 << 20),
            ("1.5GiB", 3 << 29),
            ("1GB", 1_000_000_000),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Ok(expected), "{text}");
        }
        for text in ["", "MiB", "-1", "1e6", "1..5k", "1.2.3", "16 MiBs", "lots", "17179869184G"] {
            let error = parse_size(text).unwrap_err();
            assert!(error.contains("16MiB"), "{text}: {error}");
        }
        for (text, expected) in [
            ("5 parsec", "`parsec` is no unit of size"),
            ("-5", "`-5` is less than nothing"),
            ("-5MiB", "`-5MiB` is less than nothing"),
            ("", "the value is missing"),
            ("lots", "does not begin with a number"),
            ("99999999999999999999", "is too large"),
            ("99999999TiB", "`99999999` is too large"),
            ("1..5k", "`1..5` is no number"),
        ] {
            let error = parse_size(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert_eq!(parse_size("2TiB"), Ok(2 << 40));
    }

    #[test]
    fn durations() {
        for (text, ms) in [
            ("120", 120_000),
            ("0", 0),
            ("1.5s", 1_500),
            ("250ms", 250),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "-3", "2 weeks", "1:30"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates() {
        for (text, expected) in [
            ("20mbit", 2_500_000),
            ("20 Mbit/s", 2_500_000),
            ("1.5gbit", 187_500_000),
            ("64kbit", 8_000),
            ("1000bit/s", 125),
        ] {
            assert_eq!(parse_rate(text), Ok(expected), "{text}");
        }
        for text in ["", "20", "20M", "20mbps", "20MB/s", "-1mbit", "mbit", "1e3mbit", "fast"] {
            let error = parse_rate(text).unwrap_err();
            assert!(error.contains("20mbit"), "{text}: {error}");
        }
        assert!(parse_rate("20").unwrap_err().contains("has no unit"));
        assert!(parse_rate("9\u{1b}").unwrap_err().contains("\\u{1b}"));
    }

    #[test]
    fn human_bytes() {
        for (amount, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (64 << 20, "64.0 MiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(bytes(amount), expected);
        }
    }

    #[test]
    fn human_rates() {
        for (value, expected) in [
            (0.0, "0 bit/s"),
            (10.0, "80 bit/s"),
            (6_250_000.0, "50.0 Mbit/s"),
            (124_999_999.0, "1.0 Gbit/s"),
            (f64::NAN, "-"),
            (f64::INFINITY, "-"),
            (-1.0, "-"),
        ] {
            assert_eq!(rate(value), expected);
        }
        assert_eq!(per_second(1000, Duration::ZERO), 0.0);
        assert_eq!(per_second(1000, Duration::from_millis(500)), 2000.0);
    }

    #[test]
    fn human_durations() {
        for (ms, expected) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (12_345, "12.3 s"),
            (59_949, "59.9 s"),
            (59_950, "1 min 00 s"),
            (125_000, "2 min 05 s"),
            (3_720_000, "1 h 02 min"),
        ] {
            assert_eq!(duration(Duration::from_millis(ms)), expected);
        }
    }
}
