use super::*;

fn rule(text: &str) -> DestinationRule {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn asked(text: &str) -> Destination {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

/// Whether `rule` lets a client that asks for `wanted` be connected to `address`.
#[track_caller]
fn check(listed: &str, wanted: &str, address: &str, expected: bool) {
    check_with(listed, wanted, address, &[], expected);
}

/// The same on a machine with these addresses of its own.
#[track_caller]
fn check_with(listed: &str, wanted: &str, address: &str, own: &[IpAddr], expected: bool) {
    let rules = Destinations::new([rule(listed)]);
    let address: SocketAddr = address.parse().unwrap();
    let allowed = rules.allows(&asked(wanted), address, own);
    assert_eq!(allowed, expected, "{listed} for {wanted} at {address}");
    assert!(!allowed || rules.may_allow(&asked(wanted)), "{listed} {wanted}: not looked up");
}

#[test]
fn rules_are_exact() {
    for (listed, wanted, address, expected) in [
        ("db.example:5432", "db.example:5432", "192.0.2.7:5432", true),
        ("DB.example.:5432", "db.EXAMPLE:5432", "192.0.2.7:5432", true),
        ("db.example:5432", "db.example:5433", "192.0.2.7:5433", false),
        ("db.example:5432", "xdb.example:5432", "192.0.2.7:5432", false),
        ("db.example:5432", "db.example.evil:5432", "192.0.2.7:5432", false),
        // An address is not its name, nor the other way round.
        ("db.example:5432", "192.0.2.7:5432", "192.0.2.7:5432", false),
        ("192.0.2.7:5432", "db.example:5432", "192.0.2.7:5432", false),
        ("192.0.2.7:*", "192.0.2.7:1", "192.0.2.7:1", true),
        ("[2001:db8::7]:443", "[2001:DB8:0::7]:443", "[2001:db8::7]:443", true),
        ("10.1.0.0/16:22", "10.1.255.255:22", "10.1.255.255:22", true),
        ("10.1.0.0/16:22", "10.2.0.0:22", "10.2.0.0:22", false),
        ("10.1.0.0/16:22", "inside.example:22", "10.1.2.3:22", false),
        ("[2001:db8::/32]:*", "[2001:db8:ffff::1]:9", "[2001:db8:ffff::1]:9", true),
        ("[2001:db8::/32]:*", "[2001:db9::1]:9", "[2001:db9::1]:9", false),
        ("0.0.0.0/0:*", "203.0.113.1:9", "203.0.113.1:9", true),
        ("0.0.0.0/0:*", "[2001:db8::1]:9", "[2001:db8::1]:9", false),
        ("*:443", "anything.example:443", "203.0.113.1:443", true),
        ("münchen.example:1", "XN--MNCHEN-3YA.example.:1", "203.0.113.1:1", true),
        ("xn--mnchen-3ya.example:1", "MÜNCHEN.example:1", "203.0.113.1:1", true),
        ("munchen.example:1", "münchen.example:1", "203.0.113.1:1", false),
        // Ordinary addresses that do not look ordinary.
        ("*:1", "[fd00:ec3::1]:1", "[fd00:ec3::1]:1", true),
        ("*:1", "[fd00:42::43]:1", "[fd00:42::43]:1", true),
        ("*:1", "[64:ff9b:2::1]:1", "[64:ff9b:2::1]:1", true),
        ("*:1", "[2001:0:808:808:0:0:f7f7:f7f7]:1", "[2001:0:808:808:0:0:f7f7:f7f7]:1", true),
        ("*:1", "[2001:db8::5efe:8.8.8.8]:1", "[2001:db8::5efe:8.8.8.8]:1", true),
        ("*:443", "anything.example:80", "203.0.113.1:80", false),
        // The dialled address counts, not the one asked for.
        ("*:443", "anything.example:443", "203.0.113.1:80", false),
    ] {
        check(listed, wanted, address, expected);
    }
}

#[test]
fn mapped_addresses_are_ipv4_addresses() {
    for (listed, wanted, address) in [
        ("192.0.2.7:80", "[::ffff:192.0.2.7]:80", "[::ffff:192.0.2.7]:80"),
        ("[::ffff:192.0.2.7]:80", "192.0.2.7:80", "192.0.2.7:80"),
        ("192.0.2.0/24:80", "[::ffff:192.0.2.7]:80", "[::ffff:192.0.2.7]:80"),
    ] {
        check(listed, wanted, address, true);
    }
}

/// No name, network or `*` reaches these, however written; only their own address does.
#[test]
fn reserved_addresses_are_reached_by_their_address_alone() {
    for ip in [
        "169.254.169.254",
        "169.254.0.1",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
        "0.0.0.0",
        "0.1.2.3",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "fe80::1",
        "febf::1",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd00:ec2:ffff::1",
        "fd00:42::42",
        "fd00:c1::a9fe:a9fe",
        "fd00:a9fe:a9fe::1",
        "fd00:100::100:200",
        "64:ff9b:1::1",
        "64:ff9b:1:a9fe:a9:fe00::",
        "64:ff9b:1:ffff::808:808",
        // Embedded by translators and tunnels: SIIT, Teredo (its server; its client, inverted),
        // ISATAP.
        "::ffff:0:169.254.169.254",
        "2001:0:a9fe:a9fe::1",
        "2001:0:808:808:0:0:5601:5601",
        "2001:0:808:808:0:0:80ff:fffe",
        "2001:db8::5efe:169.254.169.254",
        "2001:db8::200:5efe:100.100.100.200",
        "fd20:ce::254",
        "::",
        "ff02::1",
        "::169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "::127.0.0.1",
    ] {
        let ip: IpAddr = ip.parse().unwrap();
        let address = SocketAddr::new(ip, 80).to_string();
        let network = match ip {
            IpAddr::V4(_) => "0.0.0.0/0:*",
            IpAddr::V6(_) => "[::/0]:*",
        };
        for listed in ["*:*", "*:80", network, "evil.example:80", "localhost:80"] {
            for wanted in ["evil.example:80", "localhost:80", &address] {
                check(listed, wanted, &address, false);
            }
        }
        check(&address, &address, &address, true);
        if let IpAddr::V4(v4) = ip {
            let mapped = SocketAddr::new(v4.to_ipv6_mapped().into(), 80).to_string();
            check("*:*", &mapped, &mapped, false);
            check("*:*", "evil.example:80", &mapped, false);
        }
    }
}

/// What listens on this machine's interfaces may trust connections from the machine itself.
#[test]
fn the_machines_own_addresses_are_reached_by_their_address_alone() {
    let own: Vec<IpAddr> =
        ["192.0.2.7", "2001:db8::7", "127.0.0.1"].map(|ip| ip.parse().unwrap()).into();
    let embedded = [
        "[2002:c000:207::1]:22",
        "[64:ff9b::c000:207]:22",
        "[2001:0:c000:207::1]:22",
        "[::192.0.2.7]:22",
    ];
    for address in ["192.0.2.7:22", "[2001:db8::7]:22"].iter().chain(&embedded) {
        for listed in ["*:*", "0.0.0.0/0:*", "192.0.2.0/24:22", "[::/0]:*", "own.example:22"] {
            for wanted in ["own.example:22", "localhost:22", address] {
                check_with(listed, wanted, address, &own, false);
            }
        }
        check_with(address, address, address, &own, true);
    }
    check_with("*:*", "[::ffff:192.0.2.7]:22", "[::ffff:192.0.2.7]:22", &own, false);
    for neighbour in ["192.0.2.8:22", "[2001:db8::8]:22", "[2002:c000:208::1]:22"] {
        check_with("*:*", neighbour, neighbour, &own, true);
    }
    check_with("localhost:22", "localhost:22", "127.0.0.1:22", &own, true);
}

/// A name that its owner points at this machine reaches no service meant only for this machine.
#[test]
fn loopback_is_reached_only_where_it_is_named() {
    for (listed, wanted, address, expected) in [
        ("localhost:22", "localhost:22", "127.0.0.1:22", true),
        ("localhost:22", "LOCALHOST.:22", "[::1]:22", true),
        ("localhost:22", "127.0.0.1:22", "127.0.0.1:22", false),
        ("localhost:22", "localhost:22", "192.0.2.1:22", false),
        ("127.0.0.1:22", "localhost:22", "127.0.0.1:22", false),
        ("127.0.0.1:22", "rebound.example:22", "127.0.0.1:22", false),
        ("rebound.example:22", "rebound.example:22", "127.0.0.1:22", false),
        ("rebound.example:22", "rebound.example:22", "[::1]:22", false),
        ("rebound.example:22", "rebound.example:22", "[::ffff:127.0.0.1]:22", false),
        ("*:*", "127.0.0.1:22", "127.0.0.1:22", false),
        ("0.0.0.0/0:*", "127.0.0.1:22", "127.0.0.1:22", false),
        ("[::/0]:*", "[::1]:22", "[::1]:22", false),
    ] {
        check(listed, wanted, address, expected);
    }
}

#[test]
fn names_that_cannot_be_allowed_are_not_looked_up() {
    let rules = Destinations::new([
        rule("db.example:5432"),
        rule("10.0.0.0/8:22"),
        rule("192.0.2.7:22"),
        rule("*:443"),
    ]);
    assert!(rules.may_allow(&asked("db.example:5432")));
    assert!(rules.may_allow(&asked("some.example:443")));
    assert!(!rules.may_allow(&asked("some.example:22")), "nobody knows before it is looked up");
    assert!(!rules.may_allow(&asked("secrets-in-a-name.evil.example:5432")));
    assert!(!rules.may_allow(&asked("192.0.2.1:22")));
    assert!(!Destinations::default().may_allow(&asked("db.example:5432")));
}

#[test]
fn the_first_rule_is_the_default_where_it_is_one_place() {
    let default = |rules: &[&str]| {
        let rules = Destinations::new(rules.iter().map(|text| rule(text)));
        rules.default_place().map(|place| place.to_string())
    };
    assert_eq!(default(&["db.example:5432", "*:80"]), Some("db.example:5432".into()));
    assert_eq!(default(&["[2001:db8::1]:22"]), Some("[2001:db8::1]:22".into()));
    for none in [&["*:80", "db.example:5432"][..], &["db.example:*"], &["10.0.0.0/8:22"], &[]] {
        assert_eq!(default(none), None, "{none:?}");
    }
}

#[test]
fn text_and_back() {
    for text in [
        "db.example:5432",
        "192.0.2.7:*",
        "[2001:db8::7]:443",
        "10.1.0.0/16:22",
        "[2001:db8::/32]:*",
        "*:443",
        "*:*",
    ] {
        assert_eq!(rule(text).to_string(), text);
    }
    assert_eq!(asked("[::ffff:192.0.2.7]:1").to_string(), "192.0.2.7:1");
    assert_eq!(asked("[2001:db8::7]:1").target(), Target::Host("2001:db8::7".to_owned(), 1));
}

#[test]
fn what_is_no_destination() {
    let long = format!("{}:1", "a".repeat(254));
    for text in [
        "",
        "db",
        ":80",
        "db:",
        "db:0",
        "db:65536",
        "db:+80",
        "db:-1",
        "db:80x",
        "db:http",
        "::1:80",
        "[::1]",
        "[::1:80",
        "[db]:80",
        "[127.0.0.1]:80",
        "[fe80::1%eth0]:80",
        "d b:80",
        "d\nb:80",
        "d\u{1b}b:80",
        "ä..b:80",
        "db..example:80",
        ".db:80",
        "-db:80",
        "127.1:80",
        "0x7f.1:80",
        "0x7f000001:80",
        "2130706433:80",
        "user@db:80",
        "db/24:80",
        "db:80:90",
        "*:80",
        "db:*",
        "10.0.0.0/8:80",
        &long,
    ] {
        assert!(text.parse::<Destination>().is_err(), "{text:?} was taken");
    }
}

#[test]
fn what_is_no_rule_for_destinations() {
    for text in [
        "",
        "db",
        "*",
        "*:",
        "*:0",
        "*.example:80",
        "10.0.0.1/8:80",
        "10.0.0.0/33:80",
        "10.0.0.0/:80",
        "10.0.0.0/+8:80",
        "10.0.0.0/-1:80",
        "[::/129]:80",
        "::/0:80",
        "db/8:80",
        "[::ffff:10.0.0.0/104]:80",
        "*/0:80",
        "10.0.0.0/8/8:1",
    ] {
        assert!(text.parse::<DestinationRule>().is_err(), "{text:?} was taken");
    }
}

#[test]
fn a_unix_socket_is_reached_by_its_own_rule_only() {
    let socket = asked("unix:/run/app.sock");
    assert_eq!(socket.target(), Target::Unix(Path::new("/run/app.sock")));
    assert_eq!(socket.to_string(), "unix:/run/app.sock");
    for (listed, expected) in [
        ("unix:/run/app.sock", true),
        ("unix:/run/app.sock2", false),
        ("unix:/run", false),
        ("*:*", false),
        ("0.0.0.0/0:*", false),
        ("localhost:*", false),
        ("unix:1", false),
    ] {
        let rules = Destinations::new([rule(listed)]);
        assert_eq!(rules.may_allow(&socket), expected, "{listed}");
        assert!(!rules.allows(&socket, "127.0.0.1:1".parse().unwrap(), &[]), "{listed}");
        assert_eq!(rule(listed).to_string(), listed);
    }
    let rules = Destinations::new([rule("unix:/run/app.sock"), rule("*:*")]);
    assert_eq!(rules.default_place(), Some(socket));
    assert!(!Destinations::new([rule("unix:/run/unix")]).may_allow(&asked("unix:1")));
    for text in [
        "unix:/",
        "unix:/run/",
        "unix://run/app",
        "unix:/run/../etc/app",
        "unix:/run/./app",
        "unix:/run/a pp",
        "unix:/run/a\"pp",
        "unix:/run/a,b",
        "unix:/run/a\\pp",
        "unix:/run/\u{e4}pp",
        "unix:/run/a\0pp",
        &format!("unix:/{}", "x".repeat(107)),
    ] {
        assert!(text.parse::<Destination>().is_err(), "{text:?}");
        assert!(text.parse::<DestinationRule>().is_err(), "{text:?}");
    }
    asked(&format!("unix:/{}", "x".repeat(106)));
}

#[test]
fn rules_about_udp_and_rules_about_connections_do_not_stand_for_each_other() {
    for (listed, wanted, expected) in [
        ("udp:192.0.2.7:53", "udp:192.0.2.7:53", true),
        ("udp:*:*", "udp:192.0.2.7:53", true),
        ("udp:192.0.2.0/24:53", "udp:192.0.2.7:53", true),
        ("udp:[2001:db8::/32]:*", "udp:[2001:db8::1]:53", true),
        ("udp:*:53", "udp:ns.example:53", true),
        ("*:*", "udp:192.0.2.7:53", false),
        ("192.0.2.7:53", "udp:192.0.2.7:53", false),
        ("udp:*:*", "192.0.2.7:53", false),
        ("udp:192.0.2.7:53", "192.0.2.7:53", false),
        ("unix:/run/a", "udp:192.0.2.7:53", false),
        ("udp:*:*", "udp:127.0.0.1:53", false),
        ("udp:localhost:53", "udp:localhost:53", false),
    ] {
        let address = if wanted.contains("2001") { "[2001:db8::1]:53" } else { "192.0.2.7:53" };
        let address = if wanted.contains("127") { "127.0.0.1:53" } else { address };
        check(listed, wanted, address, expected);
    }
    check("udp:localhost:53", "udp:localhost:53", "127.0.0.1:53", true);
    // A host may be called so.
    check("udp:53", "udp:53", "192.0.2.7:53", true);
    assert!(!rule("udp:53").udp && !asked("udp:53").is_udp());
    // What names nothing is a connection.
    let rules = ["udp:192.0.2.7:53", "192.0.2.8:80"].map(rule);
    assert_eq!(Destinations::new(rules).default_place(), Some(asked("192.0.2.8:80")));
    assert_eq!(Destinations::new([rule("udp:192.0.2.7:53")]).default_place(), None);
}

#[test]
fn places_for_datagrams_are_shown_as_they_are_written_and_are_one_machines() {
    for text in ["udp:192.0.2.7:53", "udp:[2001:db8::7]:53", "udp:ns.example:53"] {
        assert_eq!((asked(text).to_string(), rule(text).to_string()), (text.into(), text.into()));
        let name = text.strip_prefix("udp:").unwrap();
        assert_eq!((asked(text).name(), asked(name).name()), (name.into(), name.into()));
        assert_eq!(asked(name).over_udp(), Some(asked(text)));
        assert!(asked(text).is_udp() && !asked(name).is_udp());
    }
    assert_eq!(rule("udp:*:*").to_string(), "udp:*:*");
    assert_eq!(asked("unix:/run/a").over_udp(), None);
    for text in ["udp:224.0.0.251:5353", "udp:255.255.255.255:67", "udp:[ff02::fb]:5353"] {
        assert!(text.parse::<DestinationRule>().is_err() && text.parse::<Destination>().is_err());
        Destination::place_to_listen(text).unwrap_err();
    }
    for text in ["udp:unix:/run/a", "udp:udp:a:1", "udp::53", "udp:a:0", "udp:a:b", "udp:1.1.1.1:"]
    {
        assert!(text.parse::<Destination>().is_err(), "{text}");
    }
    // However a network is written, and whatever a name stands for.
    for (listed, wanted, address) in [
        ("udp:224.0.0.0/4:*", "udp:ns.example:53", "224.0.0.251:53"),
        ("udp:*:*", "udp:ns.example:53", "224.0.0.251:53"),
        ("udp:*:*", "udp:ns.example:53", "[::ffff:224.0.0.251]:53"),
        ("udp:*:*", "udp:ns.example:53", "255.255.255.255:53"),
        ("udp:*:*", "udp:ns.example:53", "[ff02::fb]:53"),
    ] {
        check(listed, wanted, address, false);
    }
}
