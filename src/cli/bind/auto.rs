//! `--bind auto`: every interface that leads out, and what its lanes may carry.

use std::collections::BTreeSet;
use std::fmt;

use imux::Tier;

use super::{
    LANES_DEFAULT, check_device, no_option_of, parse_lanes, parse_rate, parse_tier, parse_yes_no,
};
use crate::cli::text::escape;

/// Interfaces whose use is mostly paid for by the byte.
const METERED: [&str; 3] = ["wwan*", "ppp*", "usb*"];

/// An interface's name, in which `*` stands for anything and `?` for one character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        check_device(text)?;
        Ok(Self(text.to_owned()))
    }

    pub fn matches(&self, name: &str) -> bool {
        matches(self.0.as_bytes(), name.as_bytes())
    }
}

/// Names have at most 15 bytes: however many stars there are, this is soon over.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            (0..=name.len()).any(|taken| name.get(taken..).is_some_and(|left| matches(rest, left)))
        }
        (Some((wanted, rest)), Some((byte, left))) => {
            (*wanted == b'?' || wanted == byte) && matches(rest, left)
        }
        _ => false,
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which interfaces become links, and what their lanes may carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutoPlan {
    pub lanes: u16,
    /// Only these; and these even if they are of a kind that is left out.
    only: Vec<Pattern>,
    /// Not these.
    not: Vec<Pattern>,
    /// The first that matches says the tier.
    tiers: Vec<(Pattern, Tier)>,
    pub express: Option<bool>,
    /// Bytes a second of each interface's lanes together.
    pub rate_max: Option<u64>,
}

/// What may follow, for messages.
const OPTIONS: &str = "known: lanes=COUNT, only=NAMES, not=NAMES, tier=TIER or tier=NAME=TIER;…, \
                       express=yes|no, rate=RATE";
const OPTION_NAMES: [&str; 6] = ["lanes", "only", "not", "tier", "express", "rate"];

impl AutoPlan {
    /// What stands behind `auto`; `None` if the bind is no such one.
    pub fn parse(text: &str) -> Option<Result<Self, String>> {
        let mut parts = text.split(',');
        let head = parts.next().unwrap_or_default();
        let (name, count) = match head.split_once('=') {
            Some((name, count)) => (name, Some(count)),
            None => (head, None),
        };
        (name.trim() == "auto").then(|| Self::with_options(count, parts))
    }

    fn with_options<'a>(
        count: Option<&str>,
        options: impl Iterator<Item = &'a str>,
    ) -> Result<Self, String> {
        let mut plan = Self {
            lanes: count.map_or(Ok(LANES_DEFAULT), parse_lanes)?,
            only: Vec::new(),
            not: Vec::new(),
            tiers: Vec::new(),
            express: None,
            rate_max: None,
        };
        let mut given = BTreeSet::new();
        for option in options {
            let unknown = |name| no_option_of("--bind auto", name, &OPTION_NAMES, OPTIONS);
            let (name, value) = option.split_once('=').ok_or_else(|| unknown(option))?;
            if !given.insert(name) || (name == "lanes" && count.is_some()) {
                return Err(format!("`{}` is given twice", escape(name)));
            }
            match name {
                "lanes" => plan.lanes = parse_lanes(value)?,
                "only" => plan.only = patterns(value)?,
                "not" => plan.not = patterns(value)?,
                "tier" => plan.tiers = tiers(value)?,
                "express" => plan.express = Some(parse_yes_no(value)?),
                "rate" => plan.rate_max = Some(parse_rate(value)?),
                _ => return Err(unknown(name)),
            }
        }
        Ok(plan)
    }

    /// Whether an interface of this name may be one; `None`: if it is of a usual kind.
    pub fn wants(&self, name: &str) -> Option<bool> {
        let any = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(name));
        match () {
            () if any(&self.not) => Some(false),
            () if self.only.is_empty() => None,
            () => Some(any(&self.only)),
        }
    }

    /// The tier of an interface; `is_mobile`: it is of a kind that is mostly paid for by the byte.
    pub fn tier(&self, name: &str, is_mobile: bool) -> Tier {
        let told = self.tiers.iter().find(|(pattern, _)| pattern.matches(name));
        let metered = || METERED.iter().any(|it| matches(it.as_bytes(), name.as_bytes()));
        match told {
            Some((_, tier)) => *tier,
            None if is_mobile || metered() => Tier::Metered,
            None => Tier::default(),
        }
    }
}

fn patterns(text: &str) -> Result<Vec<Pattern>, String> {
    text.split(';').map(Pattern::parse).collect()
}

fn tiers(text: &str) -> Result<Vec<(Pattern, Tier)>, String> {
    let one = |text: &str| match text.split_once('=') {
        Some((pattern, tier)) => Ok((Pattern::parse(pattern)?, parse_tier(tier)?)),
        None => Ok((Pattern("*".to_owned()), parse_tier(text)?)),
    };
    text.split(';').map(one).collect()
}

impl fmt::Display for AutoPlan {
    /// In the form `--bind` takes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "auto={}", self.lanes)?;
        let joined = |all: Vec<String>| all.join(";");
        for (name, patterns) in [("only", &self.only), ("not", &self.not)] {
            if !patterns.is_empty() {
                write!(f, ",{name}={}", joined(patterns.iter().map(Pattern::to_string).collect()))?;
            }
        }
        if !self.tiers.is_empty() {
            let tier = |(pattern, tier): &(Pattern, Tier)| format!("{pattern}={tier}");
            write!(f, ",tier={}", joined(self.tiers.iter().map(tier).collect()))?;
        }
        if let Some(express) = self.express {
            write!(f, ",express={}", if express { "yes" } else { "no" })?;
        }
        self.rate_max.map_or(Ok(()), |rate| write!(f, ",rate={}bit", u128::from(rate) * 8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> AutoPlan {
        let plan = AutoPlan::parse(text).expect("a bind of this kind").expect(text);
        assert_eq!(AutoPlan::parse(&plan.to_string()), Some(Ok(plan.clone())), "{plan}");
        plan
    }

    fn error(text: &str) -> String {
        AutoPlan::parse(text).expect("a bind of this kind").expect_err(text)
    }

    #[test]
    fn names_are_matched_by_patterns() {
        for (pattern, name, is_it) in [
            ("en*", "enp3s0", true),
            ("en*", "wlan0", false),
            ("*0", "eth0", true),
            ("*0", "eth01", false),
            ("e?h0", "eth0", true),
            ("e?h0", "eh0", false),
            ("*", "x", true),
            ("**a**", "bab", true),
            ("eth0", "eth0", true),
            ("eth0", "eth00", false),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().matches(name), is_it, "{pattern} {name}");
        }
    }

    #[test]
    fn which_are_wanted() {
        let all = plan("auto");
        assert_eq!((all.lanes, all.wants("tun0")), (LANES_DEFAULT, None));
        let some = plan("auto=4,only=en*;wl*,not=en?9");
        assert_eq!(some.lanes, 4);
        for (name, wanted) in
            [("en0", true), ("wlp2", true), ("en019", true), ("en09", false), ("enx9", false)]
        {
            assert_eq!(some.wants(name), Some(wanted), "{name}");
        }
        assert_eq!(plan("auto,not=eth1").wants("eth1"), Some(false));
        assert_eq!(plan("auto,not=eth1").wants("eth0"), None);
    }

    #[test]
    fn what_is_paid_for_by_the_byte_is_metered_unless_said_otherwise() {
        let usual = plan("auto");
        for name in ["wwan0", "ppp1", "usb0"] {
            assert_eq!(usual.tier(name, false), Tier::Metered);
        }
        assert_eq!(usual.tier("eth0", false), Tier::Primary);
        assert_eq!(usual.tier("eth0", true), Tier::Metered, "its kind says so");
        let told = plan("auto,tier=wwan0=backup;wl*=metered");
        assert_eq!(told.tier("wwan0", true), Tier::Backup);
        assert_eq!(told.tier("wwan1", true), Tier::Metered);
        assert_eq!(told.tier("wlan0", false), Tier::Metered);
        assert_eq!(plan("auto,tier=primary").tier("wwan0", true), Tier::Primary);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, words) in [
            ("auto=0", "0 lanes carry nothing"),
            ("auto,onyl=x", "did you mean `only`?"),
            ("auto,only=", "name is missing"),
            ("auto,only=a;a/b", "no interface name"),
            ("auto,tier=fast", "no tier"),
            ("auto,tier=a=fast", "no tier"),
            ("auto,rate=x", "`x`"),
            ("auto,lanes=2,lanes=3", "given twice"),
            ("auto=2,lanes=3", "given twice"),
            ("auto,express", "no option"),
        ] {
            assert!(error(text).contains(words), "{text}: {}", error(text));
        }
        assert_eq!(AutoPlan::parse("any"), None);
        assert_eq!(AutoPlan::parse("dev:auto"), None);
    }
}
