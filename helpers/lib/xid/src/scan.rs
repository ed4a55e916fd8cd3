// SPDX-License-Identifier: MIT
//! The little that reading a line takes.

/// What is left of a line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scan<'a>(pub(crate) &'a str);

impl<'a> Scan<'a> {
    /// Steps over `literal`, if it comes next.
    pub(crate) fn tag(&mut self, literal: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(literal)?;
        Some(())
    }

    /// The text before `literal`, stepping over both.
    pub(crate) fn until(&mut self, literal: &str) -> Option<&'a str> {
        let (before, after) = self.0.split_once(literal)?;
        self.0 = after;
        Some(before)
    }

    /// As many characters as `wanted` takes, at least one.
    pub(crate) fn while_(&mut self, wanted: impl Fn(char) -> bool) -> Option<&'a str> {
        let end = self.0.find(|c| !wanted(c)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        (!taken.is_empty()).then_some(taken)
    }

    /// A decimal number that fits.
    pub(crate) fn number<T: std::str::FromStr>(&mut self) -> Option<T> {
        self.while_(|c| c.is_ascii_digit())?.parse().ok()
    }

    /// `0x1f`, as it stands.
    pub(crate) fn hex(&mut self) -> Option<&'a str> {
        let whole = self.0;
        self.tag("0x")?;
        let digits = self.while_(|c| c.is_ascii_hexdigit())?;
        Some(&whole[..2 + digits.len()])
    }

    /// Spaces, if any.
    pub(crate) fn spaces(&mut self) {
        self.0 = self.0.trim_start();
    }
}

/// The number in `0x1f`, if it has 32 bits.
pub(crate) fn hex_value(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// The number that follows `literal` in `text`.
pub(crate) fn number_after<T: std::str::FromStr>(text: &str, literal: &str) -> Option<T> {
    Scan(text.split_once(literal)?.1).number()
}
