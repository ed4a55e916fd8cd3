// SPDX-License-Identifier: MIT
//! How each test ended last, kept in the cache: what is shown later, and which tests are long.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::PoisonError;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::cache::Cache;
use crate::command::output_of;
use crate::stages::checkout;

/// One test's last end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ended {
    /// It held.
    pub passed: bool,
    /// How long it took.
    pub seconds: f64,
    /// Only what the default suite runs of it.
    pub short: bool,
    /// The commit that was checked out; with a `+` where files were changed.
    pub commit: String,
}

/// All of them.
pub struct Results {
    file: PathBuf,
    commit: String,
    last: Mutex<BTreeMap<String, Ended>>,
}

impl Results {
    /// Reads what is kept.
    pub fn open(cache: &Cache) -> Result<Self> {
        let file = cache.root().join("results.json");
        Ok(Results { commit: commit(), last: Mutex::new(read(&file)), file })
    }

    /// How this test ended last.
    pub fn of(&self, name: &str) -> Option<Ended> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// What is known of how long it takes.
    pub fn seconds(&self, name: &str) -> Option<f64> {
        self.of(name).map(|ended| ended.seconds)
    }

    /// It has ended.
    pub fn set(&self, name: &str, passed: bool, seconds: f64, short: bool) -> Result<()> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = self.file.parent().context("the cache has no folder")?;
        let lock = File::create(folder.join("locks/results"))?;
        lock.lock()?;
        // Another rig may have noted what ended there.
        *last = read(&self.file);
        last.insert(name.to_owned(), Ended { passed, seconds, short, commit: self.commit.clone() });
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer_pretty(&mut file, &*last)?;
        file.persist(&self.file).with_context(|| format!("cannot write {}", self.file.display()))?;
        Ok(())
    }

    /// A table of how these ended last.
    pub fn table<'a>(&self, names: impl Iterator<Item = &'a str>) -> String {
        let mut text = format!("This checkout is {}.\n", self.commit);
        for name in names {
            text.push_str(&match self.of(name) {
                None => format!("-    {name}\n"),
                Some(Ended { passed, seconds, short, commit }) => {
                    let word = if passed { "ok  " } else { "FAIL" };
                    let short = if short { "  (short)" } else { "" };
                    format!("{word} {name:<32} {seconds:>6.1} s  {commit}{short}\n")
                }
            });
        }
        text
    }
}

/// What cannot be read, of another version of the rig as it may be, is as good as none.
fn read(file: &Path) -> BTreeMap<String, Ended> {
    fs::read(file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

fn commit() -> String {
    let git = |arguments: &[&str]| output_of(Command::new("git").arg("-C").arg(checkout()).args(arguments));
    match git(&["rev-parse", "--short", "HEAD"]) {
        Ok(commit) => {
            let changed = git(&["status", "--porcelain"]).map_or(true, |files| !files.trim().is_empty());
            format!("{}{}", commit.trim(), if changed { "+" } else { "" })
        }
        Err(_) => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_rigs_at_once_keep_the_results_of_both() {
        let base = tempfile::tempdir().expect("a folder");
        let cache = Cache::open_in(base.path()).expect("a cache");
        let [one, other] = [(); 2].map(|()| Results::open(&cache).expect("none yet"));
        one.set("a", true, 1.0, false).expect("is noted");
        other.set("b", false, 2.0, false).expect("is noted");
        one.set("c", true, 3.0, true).expect("is noted");
        let all = Results::open(&cache).expect("three");
        let passed: Vec<_> = ["a", "b", "c"].map(|name| all.of(name).map(|ended| ended.passed)).to_vec();
        assert_eq!(passed, [Some(true), Some(false), Some(true)]);
    }
}
