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

/// The places of `members` in waves: each needs only what is in waves before it. What is needed
/// and not among the members runs anyway. Who need each other in a circle come last, together:
/// their engine started them somehow before.
pub fn waves(members: &[Member]) -> Vec<Vec<usize>> {
    let mut place = BTreeMap::new();
    for (index, member) in members.iter().enumerate() {
        for alias in &member.aliases {
            place.insert(alias.as_str(), index);
        }
    }
    let needs: Vec<Vec<usize>> = members
        .iter()
        .enumerate()
        .map(|(index, member)| {
            let found = member.needs.iter().filter_map(|need| place.get(need.as_str()).copied());
            found.filter(|need| *need != index).collect()
        })
        .collect();
    let mut placed = vec![false; members.len()];
    let mut waves = Vec::new();
    loop {
        let ready = |index: &usize| !placed[*index] && needs[*index].iter().all(|need| placed[*need]);
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(name: &str, needs: &[&str]) -> Member {
        Member { aliases: vec![name.into()], needs: needs.iter().map(|need| (*need).to_owned()).collect() }
    }

    #[test]
    fn who_is_needed_comes_first() {
        assert_eq!(waves(&[]), Vec::<Vec<usize>>::new());
        assert_eq!(waves(&[member("a", &[]), member("b", &[])]), [[0, 1]]);
        let members = [member("web", &["db", "elsewhere"]), member("db", &["net"]), member("net", &[])];
        assert_eq!(waves(&members), [[2], [1], [0]]);
        assert_eq!(
            waves(&[member("a", &["b"]), member("b", &["a"]), member("c", &["c"])]),
            [vec![2], vec![0, 1]]
        );
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
            let mut all: Vec<usize> = waves(&members).concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..members.len()).collect::<Vec<_>>());
        }
    }
}
