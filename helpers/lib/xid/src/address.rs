// SPDX-License-Identifier: MIT
//! Where a GPU sits.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// The PCI address of a GPU or a switch, without the function: `0000:91:00`, as Xids give it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The PCI domain; not 0 on many ARM machines, and of more than 16 bits behind some bridges.
    pub domain: u32,
    /// The bus.
    pub bus: u8,
    /// The device, or slot.
    pub device: u8,
}

impl Address {
    /// The address at the start of `text`, and the text behind it.
    pub(crate) fn take(text: &str) -> Option<(Self, &str)> {
        let domain = text.find(':').filter(|length| (4..=8).contains(length))?;
        let hex = |range: std::ops::Range<usize>| {
            text.get(range).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
        };
        let address = Self {
            domain: u32::from_str_radix(hex(0..domain)?, 16).ok()?,
            bus: u8::from_str_radix(hex(domain + 1..domain + 3)?, 16).ok()?,
            device: u8::from_str_radix(hex(domain + 4..domain + 6)?, 16).ok()?,
        };
        (text.as_bytes().get(domain + 3) == Some(&b':')).then_some((address, &text[domain + 6..]))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}", self.domain, self.bus, self.device)
    }
}

/// `text` is no PCI address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoAddress;

impl FromStr for Address {
    type Err = NoAddress;

    /// With or without a function, as sysfs and NVML give it too.
    fn from_str(text: &str) -> Result<Self, NoAddress> {
        match Self::take(text).ok_or(NoAddress)? {
            (address, "") => Ok(address),
            (address, rest) => match rest.as_bytes() {
                [b'.', b'0'..=b'7'] => Ok(address),
                _ => Err(NoAddress),
            },
        }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_that_is_written_somewhere_is_read() {
        let read = |text: &str| text.parse::<Address>().map(|address| address.to_string());
        assert_eq!(read("0000:91:00.0").as_deref(), Ok("0000:91:00"));
        assert_eq!(read("0001:AB:1c").as_deref(), Ok("0001:ab:1c"));
        // As NVML writes it.
        assert_eq!(read("00000000:01:00.0").as_deref(), Ok("0000:01:00"));
        assert_eq!(read("00010018:01:00").as_deref(), Ok("10018:01:00"));
        for bad in [
            "",
            "01:00",
            "0000:01",
            "0000:01:0",
            "0000:g1:00",
            "0000:01:00.8",
            "0000:01:00 ",
            "0000-01:00",
            "+000:01:00",
            "000é:01:00",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
