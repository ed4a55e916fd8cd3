// SPDX-License-Identifier: MIT
//! Inputs out of a corpus.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::Index;

use crate::Input;

/// Words that stand for trouble in one format or another.
const WORDS: [&[u8]; 30] = [
    b"\n",
    b"\0",
    b" ",
    b"\t",
    b"\r\n",
    b"/",
    b"..",
    b"/../",
    b"\\",
    b"\\x0a",
    b"%",
    b"\"",
    b"'",
    b":",
    b"=",
    b"{",
    b"[",
    b"&a [",
    b"*a",
    b"-1",
    b"0",
    b"4294967296",
    b"18446744073709551615",
    b"99999999999999999999",
    b"\x1b[31m",
    b"\xff",
    "\u{202e}".as_bytes(),
    "\u{feff}".as_bytes(),
    "\u{85}".as_bytes(),
    "\u{61c}".as_bytes(),
];

/// What ends, nests or escapes.
const MARKS: &[u8] = b"\n\0 /:\"\\[{(";

/// The most words that are taken from a corpus.
const MOST_WORDS: usize = 2000;

/// One change. Places are fractions of what there is.
#[derive(Debug, Clone)]
enum Edit {
    Replace(Index, u8),
    Flip(Index, u8),
    Insert(Index, Index),
    Overwrite(Index, Index),
    Remove(Index, Index),
    Repeat(Index, Index, usize),
    Splice(Index, Index, Index),
    Cut(Index),
}

/// Mutations of `seeds`, and a few bytes of any kind.
pub(crate) fn inputs(seeds: &[Vec<u8>]) -> impl Strategy<Value = Input> + use<> {
    let (seeds, words) = (seeds.to_vec(), words(seeds));
    let at = any::<Index>;
    let edit = prop_oneof![
        2 => (at(), any::<u8>()).prop_map(|(at, byte)| Edit::Replace(at, byte)),
        1 => (at(), 0..8_u8).prop_map(|(at, bit)| Edit::Flip(at, bit)),
        4 => (at(), at()).prop_map(|(at, word)| Edit::Insert(at, word)),
        4 => (at(), at()).prop_map(|(at, word)| Edit::Overwrite(at, word)),
        2 => (at(), at()).prop_map(|(at, length)| Edit::Remove(at, length)),
        1 => (at(), at(), 1..20_usize).prop_map(|(at, length, times)| Edit::Repeat(at, length, times)),
        2 => (at(), at(), at()).prop_map(|(at, seed, from)| Edit::Splice(at, seed, from)),
        1 => at().prop_map(Edit::Cut),
    ];
    let mutated = (at(), prop::collection::vec(edit, 1..8)).prop_map(move |(seed, edits)| {
        let mut bytes = seed.get(&seeds).clone();
        edits.iter().for_each(|edit| apply(edit, &mut bytes, &seeds, &words));
        Input(bytes)
    });
    prop_oneof![
        15 => mutated,
        1 => prop::collection::vec(any::<u8>(), 0..300).prop_map(Input),
    ]
}

/// What `seeds` are made of, and [`WORDS`].
fn words(seeds: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut found = BTreeSet::new();
    for seed in seeds {
        for word in seed.chunk_by(|one, other| is_of_word(*one) && is_of_word(*other)) {
            found.insert(word.to_vec());
        }
    }
    // As many of trouble as of the rest: half of all insertions.
    let own: Vec<Vec<u8>> = found.into_iter().take(MOST_WORDS).collect();
    let times = (own.len() / WORDS.len()).clamp(1, 20);
    let trouble = std::iter::repeat_n(WORDS, times).flatten().map(<[u8]>::to_vec);
    own.into_iter().chain(trouble).collect()
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn apply(edit: &Edit, bytes: &mut Vec<u8>, seeds: &[Vec<u8>], words: &[Vec<u8>]) {
    let place = |at: &Index| at.index(bytes.len() + 1);
    // Short ones are more likely: what is long leaves little.
    let length = |from: usize, length: &Index| length.index(bytes.len() - from + 1).min(length.index(64));
    match edit {
        Edit::Replace(..) | Edit::Flip(..) if bytes.is_empty() => {}
        Edit::Replace(at, byte) => *at.get_mut(bytes) = *byte,
        Edit::Flip(at, bit) => *at.get_mut(bytes) ^= 1 << bit,
        Edit::Insert(at, word) => {
            let at = place(at);
            bytes.splice(at..at, word.get(words).iter().copied());
        }
        Edit::Overwrite(at, word) => {
            // A whole word by another.
            let at = place(at);
            let from = bytes[..at].iter().rposition(|byte| !is_of_word(*byte)).map_or(0, |end| end + 1);
            let to =
                bytes[at..].iter().position(|byte| !is_of_word(*byte)).map_or(bytes.len(), |end| at + end);
            bytes.splice(from..to, word.get(words).iter().copied());
        }
        Edit::Remove(at, many) => {
            let at = place(at);
            let end = at + length(at, many);
            bytes.drain(at..end);
        }
        Edit::Repeat(at, many, times) => {
            let at = place(at);
            let part = bytes[at..at + length(at, many)].repeat(*times);
            bytes.splice(at..at, part);
        }
        Edit::Splice(at, seed, from) => {
            bytes.truncate(place(at));
            let seed = seed.get(seeds);
            bytes.extend_from_slice(&seed[from.index(seed.len() + 1)..]);
        }
        Edit::Cut(at) => bytes.truncate(place(at)),
    }
}

/// Inputs of `size` bytes: all seeds again and again; the first with something long in its middle; and what the
/// seeds have for brackets and marks, again and again.
pub(crate) fn large(seeds: &[Vec<u8>], size: usize) -> Vec<Vec<u8>> {
    let again = |what: &[u8]| what.iter().copied().cycle().take(size).collect::<Vec<u8>>();
    let all = seeds.concat();
    let mut inputs = Vec::new();
    if !all.is_empty() {
        inputs.push(again(&all));
    }
    for filler in [b'a', b'0'] {
        let mut long = seeds[0].clone();
        let middle = long.len() / 2;
        long.splice(middle..middle, std::iter::repeat_n(filler, size));
        inputs.push(long);
    }
    let marks = MARKS.iter().filter(|mark| all.contains(mark));
    inputs.extend(marks.map(|mark| again(&[*mark])));
    inputs
}
