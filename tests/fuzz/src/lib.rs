// SPDX-License-Identifier: MIT
//! Fuzzing in `cargo test`, on the stable compiler.
//!
//! A target is a test of the crate that has the reader: [`run`] gives it inputs, and it asserts what must hold
//! whatever they are. Inputs are the files of `CRATE/corpus/TARGET`, mutations of them, and inputs of 1 MiB.
//!
//! They are the same in each run. `PROPTEST_RNG_SEED=7` gives others, `PROPTEST_CASES=100000` gives more (256
//! otherwise). An input that fails is shown in its smallest form: keep it as a file of the corpus.

#![forbid(unsafe_code)]

mod assert;
mod mutate;
mod quiet;

use std::cell::Cell;
use std::fmt;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use proptest::test_runner::{Config, RngSeed, TestError, TestRunner};
use tempfile::TempDir;

pub use assert::{assert_at_most, assert_plain, is_plain};

/// How large the large inputs are.
pub const LARGE: usize = 1 << 20;

/// How long a target may take for one of them, in a build for tests on a busy machine. What takes time by the
/// square of the length takes minutes.
const TIME: Duration = Duration::from_secs(15);

/// Bytes that are shown as text.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Input(pub(crate) Vec<u8>);

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 4096;
        let shown = &self.0[..self.0.len().min(SHOWN)];
        write!(f, "b\"{}\"", shown.escape_ascii())?;
        if self.0.len() > SHOWN { write!(f, " and {} bytes more", self.0.len() - SHOWN) } else { Ok(()) }
    }
}

/// Gives inputs to `check`, which panics where something does not hold. `directory` is that of the crate.
///
/// # Panics
/// There is no corpus, `check` has panicked, or it takes too long.
pub fn run(directory: &str, target: &str, check: impl Fn(&[u8])) {
    let seeds = corpus(&Path::new(directory).join("corpus").join(target));
    for seed in &seeds {
        check(seed);
    }
    let mut config = Config { failure_persistence: None, ..Config::default() };
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(0);
    }
    let tried = Cell::new(0_u32);
    quiet::while_mutating(true);
    let result = TestRunner::new(config).run(&mutate::inputs(&seeds), |input| {
        tried.set(tried.get() + 1);
        check(&input.0);
        Ok(())
    });
    quiet::while_mutating(false);
    match result {
        Ok(()) => assert!(tried.get() > 0, "{target}: PROPTEST_CASES is 0"),
        Err(TestError::Fail(why, input)) => panic!("{target}: {why}\nthe input: {input:?}"),
        Err(TestError::Abort(why)) => panic!("{target}: {why}"),
    }
    for input in mutate::large(&seeds, LARGE) {
        let begun = Instant::now();
        check(&input);
        let took = begun.elapsed();
        let input = Input(input[..64].to_vec());
        assert!(took < TIME, "{target}: {took:?} for 1 MiB that begins with {input:?}");
    }
}

/// A directory in memory, where there is one for all: what is synced for each of hundreds of inputs takes long on
/// a disk.
///
/// # Panics
/// It cannot be made.
pub fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.unwrap_or_else(|error| panic!("a temporary directory: {error}"))
}

/// The files of a corpus, in the order of their names.
fn corpus(directory: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<_> =
        entries.map(|entry| entry.unwrap_or_else(|error| panic!("{error}")).path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{}: the corpus is empty", directory.display());
    paths
        .iter()
        .map(|path| fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::catch_unwind;

    fn with(seed: &[u8]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir_all(directory.path().join("corpus/x")).expect("creates");
        fs::write(directory.path().join("corpus/x/1"), seed).expect("writes");
        directory
    }

    fn failure(seed: &[u8], check: fn(&[u8])) -> String {
        let directory = with(seed);
        let path = directory.path().to_str().expect("is text").to_owned();
        let failed = catch_unwind(|| run(&path, "x", check)).expect_err("fails");
        failed.downcast_ref::<String>().cloned().unwrap_or_default()
    }

    #[test]
    fn what_a_mutation_breaks_is_shown_small() {
        let twice = |text: &[u8]| assert!(text.iter().filter(|byte| **byte == b':').count() < 3, "three");
        let message = failure(b"a long text with: two words:", twice);
        assert!(message.contains("the input: b\"") && message.contains("three"), "{message}");
        let control = |text: &[u8]| assert!(!text.contains(&0x1b), "an escape");
        assert!(failure(b"no such thing", control).contains("\\x1b"));
        let number = |text: &[u8]| {
            let text = String::from_utf8_lossy(text);
            assert!(!text.split(' ').any(|word| word.parse::<u64>() == Ok(u64::MAX)), "the highest");
        };
        assert!(failure(b"pid 7 of 8", number).contains("18446744073709551615"));
    }

    #[test]
    fn a_target_without_corpus_fails() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().to_str().expect("is text").to_owned();
        catch_unwind(|| run(&path, "x", |_| ())).expect_err("has none");
        fs::create_dir_all(directory.path().join("corpus/x")).expect("creates");
        catch_unwind(|| run(&path, "x", |_| ())).expect_err("is empty");
    }

    #[test]
    fn inputs_are_the_same_each_time_and_some_are_large() {
        let directory = with(b"{\"a\": [1, 2]}");
        let path = directory.path().to_str().expect("is text");
        let all = || {
            let seen = std::cell::RefCell::new(Vec::new());
            run(path, "x", |input| seen.borrow_mut().push(input.to_vec()));
            seen.into_inner()
        };
        let (one, other) = (all(), all());
        assert!(one == other && one.len() > 200);
        let large: Vec<&Vec<u8>> = one.iter().filter(|input| input.len() >= LARGE).collect();
        assert!(large.iter().any(|input| input.starts_with(b"[[[[")), "nested without end");
        assert!(large.iter().any(|input| input.starts_with(b"{\"a\": [1, 2]}{\"a\"")), "repeated");
    }
}
