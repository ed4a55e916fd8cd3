// SPDX-License-Identifier: MIT
//! What is set on the GPUs.

use ledger::Setting;

/// The GPUs that are set alike together, each with what is set on it, in words.
pub fn alike(gpus: &[(String, &[Setting])]) -> Vec<(String, String)> {
    let mut alike: Vec<(Vec<&str>, &[Setting])> = Vec::new();
    for (gpu, settings) in gpus.iter().filter(|(_, settings)| !settings.is_empty()) {
        match alike.iter_mut().find(|(_, others)| others == settings) {
            Some((gpus, _)) => gpus.push(gpu),
            None => alike.push((vec![gpu], settings)),
        }
    }
    let words = |(gpus, settings): (Vec<&str>, &[Setting])| {
        let gpus = match gpus.as_slice() {
            [only] => (*only).to_owned(),
            several => format!("{} GPUs", several.len()),
        };
        (gpus, settings.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
    };
    alike.into_iter().map(words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_that_are_set_alike_are_shown_once() {
        let (limit, persistence) = ([Setting::PowerLimit { milliwatts: 1000 }], [Setting::Persistence]);
        let gpus: Vec<(String, &[Setting])> = vec![
            ("GPU 0".into(), &limit),
            ("GPU 1".into(), &persistence),
            ("GPU 2".into(), &limit),
            ("GPU 3".into(), &[]),
        ];
        let expected = [("2 GPUs", "power limit 1 W"), ("GPU 1", "persistence mode on")];
        assert_eq!(alike(&gpus), expected.map(|(gpus, set)| (gpus.to_owned(), set.to_owned())));
    }
}
