//! The fuzz targets. Not part of the library: they exist in tests, which replay the corpora, and in
//! cargo-fuzz builds, whose programs in `fuzz/` call one function each.
//!
//! A target takes arbitrary bytes and panics if something is wrong. Its code lives next to what it
//! tests, in that room's module `fuzz`, and is compiled with every test.

#[cfg(test)]
mod corpus;

/// One target per line, with a test that replays its corpus.
macro_rules! targets {
    ($($(#[$attribute:meta])* $name:ident => $run:path;)*) => {
        /// Name and function of every target.
        pub const TARGETS: &[(&str, fn(&[u8]))] = &[$($(#[$attribute])* (stringify!($name), $name),)*];

        $(
            $(#[$attribute])*
            #[doc = concat!("The target of `fuzz/fuzz_targets/", stringify!($name), ".rs`.")]
            pub fn $name(data: &[u8]) {
                $run(data);
            }
        )*

        #[cfg(test)]
        mod corpora {
            $(
                $(#[$attribute])*
                #[test]
                fn $name() {
                    super::corpus::replay(stringify!($name), super::$name);
                }
            )*
        }
    };
}

targets! {
    decode => crate::proto::fuzz::decode;
    cuts => crate::proto::fuzz::cuts;
    round_trip => crate::proto::fuzz::round_trip;
    range_set => crate::proto::fuzz::range_set;
    assembler => crate::proto::fuzz::assembler;
    endpoints => crate::proto::fuzz::endpoints;
    hostile => crate::proto::fuzz::hostile;
    records => crate::lane::fuzz_records;
    known_hosts => crate::trust::fuzz::known_hosts;
    certificate => crate::trust::fuzz::certificate;
    authorized_clients => crate::trust::fuzz::authorized_clients;
    destinations => crate::trust::fuzz::destinations;
    invitation => crate::trust::fuzz::invitation;
    #[cfg(feature = "proxy")]
    socks4 => crate::tunnel::proxy::fuzz_socks4;
    // In tests, the program has these, where they belong.
    #[cfg(all(fuzzing, feature = "cli"))]
    options => crate::cli::fuzz::options;
    #[cfg(all(fuzzing, feature = "cli"))]
    forwards => crate::cli::fuzz::forwards;
    #[cfg(all(fuzzing, feature = "cli"))]
    control => crate::cli::fuzz::control;
    #[cfg(all(fuzzing, feature = "cli"))]
    arguments => crate::cli::fuzz::arguments;
}
