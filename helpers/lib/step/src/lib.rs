//! What every step shares: the two verbs, the root, the configuration, the journal, exit codes.

mod root;

pub use root::Root;
