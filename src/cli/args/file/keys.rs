//! Which keys there are, and those of a table.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A key in a file, with its place.
pub(super) type Key<'i> = Spanned<Cow<'i, str>>;

/// The keys of a command: its options' long names. What holds for all commands is no key of one.
pub(super) fn keys_of(command: &clap::Command) -> impl Iterator<Item = (&str, &clap::Arg)> {
    let is_root = command.has_subcommands();
    let keys = command.get_arguments().filter_map(|arg| Some((arg.get_long()?, arg)));
    keys.filter(move |(key, arg)| {
        !["help", "version", "print-config"].contains(key) && arg.is_global_set() == is_root
    })
}

/// As written: a table sorts its keys.
pub(super) fn in_order<'a, 'i>(
    table: &'a DeTable<'i>,
) -> Vec<(&'a Key<'i>, &'a Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}
