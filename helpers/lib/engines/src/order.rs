// SPDX-License-Identifier: MIT
//! Who has to run before whom.

use std::collections::BTreeMap;

/// A container among others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Member {
    /// Every word by which another may mean it.
    pub aliases: Vec<String>,
    /// Who has to run before it can start.
    pub needs: Vec<String>,
}

/// Which way to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Start: who is needed comes first.
    Up,
    /// Stop: who is needed comes last.
    Down,
}

/// The places of `members` in waves: each waits only for what is in waves before it, and is in the
/// first that it can be in, so that one without relations does not wait. What is needed and
/// not among the members runs anyway. Who need each other in a circle come last, together: their
/// engine started them somehow before.
pub fn waves(members: &[Member], direction: Direction) -> Vec<Vec<usize>> {
    let before = before(members, direction);
    let mut placed = vec![false; members.len()];
    let mut waves = Vec::new();
    loop {
        let ready = |index: &usize| !placed[*index] && before[*index].iter().all(|other| placed[*other]);
        let mut wave: Vec<usize> = (0..members.len()).filter(ready).collect();
        if wave.is_empty() {
            wave = (0..members.len()).filter(|index| !placed[*index]).collect();
            if wave.is_empty() {
                return waves;
            }
        }
        for index in &wave {
            placed[*index] = true;
        }
        waves.push(wave);
    }
}

/// For each member, whom it waits for.
fn before(members: &[Member], direction: Direction) -> Vec<Vec<usize>> {
    let mut place = BTreeMap::new();
    for (index, member) in members.iter().enumerate() {
        for alias in &member.aliases {
            place.insert(alias.as_str(), index);
        }
    }
    let mut before = vec![Vec::new(); members.len()];
    for (index, member) in members.iter().enumerate() {
        for need in member.needs.iter().filter_map(|need| place.get(need.as_str()).copied()) {
            match direction {
                _ if need == index => {}
                Direction::Up => before[index].push(need),
                Direction::Down => before[need].push(index),
            }
        }
    }
    before
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(name: &str, needs: &[&str]) -> Member {
        Member { aliases: vec![name.into()], needs: needs.iter().map(|need| (*need).to_owned()).collect() }
    }

    #[test]
    fn who_is_needed_starts_first_and_stops_last() {
        assert_eq!(waves(&[], Direction::Up), Vec::<Vec<usize>>::new());
        assert_eq!(waves(&[member("a", &[]), member("b", &[])], Direction::Up), [[0, 1]]);
        let members = [
            member("web", &["db", "elsewhere"]),
            member("db", &["net"]),
            member("net", &[]),
            member("x", &[]),
        ];
        assert_eq!(waves(&members, Direction::Up), [vec![2, 3], vec![1], vec![0]]);
        assert_eq!(waves(&members, Direction::Down), [vec![0, 3], vec![1], vec![2]], "x does not wait");
        let circle = [member("a", &["b"]), member("b", &["a"]), member("c", &["c"])];
        assert_eq!(waves(&circle, Direction::Up), [vec![2], vec![0, 1]]);
    }

    proptest! {
        #[test]
        fn everyone_has_one_place(needs in proptest::collection::vec(proptest::collection::vec(0usize..8, 0..3), 0..8)) {
            let members: Vec<Member> = needs
                .iter()
                .enumerate()
                .map(|(index, needs)| Member {
                    aliases: vec![index.to_string()],
                    needs: needs.iter().map(usize::to_string).collect(),
                })
                .collect();
            for direction in [Direction::Up, Direction::Down] {
                let mut all: Vec<usize> = waves(&members, direction).concat();
                all.sort_unstable();
                prop_assert_eq!(all, (0..members.len()).collect::<Vec<_>>());
            }
        }
    }
}
