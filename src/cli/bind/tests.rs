use super::*;

fn addr(text: &str, lanes: u16) -> LinkPlan {
    LinkPlan::new(BindSource::Addr(text.parse().unwrap()), lanes)
}

fn device(name: &str, lanes: u16) -> LinkPlan {
    LinkPlan::new(BindSource::Device(name.to_owned()), lanes)
}

fn link_local(addr: &str, device: &str, lanes: u16) -> LinkPlan {
    let (addr, device) = (addr.parse().unwrap(), device.to_owned());
    LinkPlan::new(BindSource::LinkLocal { addr, device }, lanes)
}

#[test]
fn single_binds() {
    for (text, expected) in [
        ("0.0.0.0", addr("0.0.0.0", LANES_DEFAULT)),
        ("192.168.1.2=4", addr("192.168.1.2", 4)),
        ("[2001:db8::1]=4", addr("2001:db8::1", 4)),
        ("2001:db8::1=4", addr("2001:db8::1", 4)),
        ("[2001:db8::1]", addr("2001:db8::1", LANES_DEFAULT)),
        ("::1", addr("::1", LANES_DEFAULT)),
        ("::ffff:10.0.0.1=2", addr("10.0.0.1", 2)),
        ("dev:eth1=4", device("eth1", 4)),
        ("dev:wlp0s20f3", device("wlp0s20f3", LANES_DEFAULT)),
        ("dev:eth0.100=1", device("eth0.100", 1)),
        ("10.0.0.2,lanes=3", addr("10.0.0.2", 3)),
        ("10.0.0.2=256", addr("10.0.0.2", 256)),
        ("any=3", LinkPlan::new(BindSource::Any, 3)),
        ("fe80::2%eth1=4", link_local("fe80::2", "eth1", 4)),
        ("[fe80::2%eth0.100]", link_local("fe80::2", "eth0.100", LANES_DEFAULT)),
    ] {
        assert_eq!(parse_bind(text).as_ref(), Ok(&expected), "{text}");
    }
}

#[test]
fn tiers_and_caps() {
    let plan = parse_bind("10.0.0.2=3,tier=backup,rate=20mbit").unwrap();
    assert_eq!((plan.tier, plan.rate_max), (Tier::Backup, Some(2_500_000)));
    assert_eq!(plan.to_string(), "10.0.0.2=3,tier=backup,rate=20000000bit");
    assert_eq!(parse_bind(&plan.to_string()).as_ref(), Ok(&plan));
    let plan = parse_bind("dev:wwan0,rate=64kbit,tier=metered,lanes=1").unwrap();
    assert_eq!((plan.bind.lanes, plan.tier, plan.rate_max), (1, Tier::Metered, Some(8_000)));
    let map: BindMap =
        r#"{"10.0.0.2": {"lanes": 3, "tier": "backup", "rate": "20mbit"}, "dev:wwan0": {}}"#
            .parse()
            .unwrap();
    let expected = parse_bind("10.0.0.2=3,tier=backup,rate=20mbit").unwrap();
    assert_eq!(map.0, [expected, device("wwan0", LANES_DEFAULT)]);
}

#[test]
fn express_lanes() {
    let plan = parse_bind("10.0.0.2=3,express=no").unwrap();
    assert_eq!((plan.express, plan.to_string()), (Some(false), "10.0.0.2=3,express=no".into()));
    assert_eq!(parse_bind("10.0.0.2=3,express=yes").unwrap().express, Some(true));
    assert_eq!(parse_bind("10.0.0.2=3,tier=express").unwrap().tier, Tier::Express);
    let both = r#"{"10.0.0.2": {"express": "no"}, "dev:wwan0": {"express": false}}"#;
    let BindMap(plans) = both.parse().unwrap();
    assert!(plans.iter().all(|plan| plan.express == Some(false)), "{plans:?}");
}

#[test]
fn binds_that_cannot_be() {
    for (text, expected) in [
        ("10.0.0.1,express=maybe", "neither yes nor no"),
        ("10.0.0.1,tier=backup,express=yes", "leave one of the two out"),
        ("", "address is missing"),
        ("=4", "address is missing"),
        ("eth1", "write dev:eth1"),
        ("eth1=4", "write dev:eth1"),
        ("10.0.0.300", "no address"),
        ("10.0.0.1:443", "no address"),
        ("fe80::1", "dev:eth1"),
        ("2001:db8::1%eth1", "link-local addresses only"),
        ("10.0.0.1%eth1", "link-local addresses only"),
        ("[fe80::1%]", "name is missing"),
        ("fe80::1%e/h", "no interface name"),
        ("224.0.0.1", "multicast"),
        ("255.255.255.255", "broadcast"),
        ("10.0.0.1=", "whole number from 1 to 256"),
        ("10.0.0.1=0", "0 lanes"),
        ("10.0.0.1=-1", "whole number"),
        ("10.0.0.1=1.5", "whole number"),
        ("10.0.0.1=1001", "too many"),
        ("10.0.0.1=99999999999999999999999", "too many"),
        ("10.0.0.1=4,colour=red", "`colour` is no option of a bind; known: lanes=COUNT, tier="),
        ("10.0.0.1=4,tier=", "`` is no tier; there are primary, express, backup and metered"),
        ("10.0.0.1=4,tier=Backup", "`Backup` is no tier"),
        ("10.0.0.1=4,tier", "`tier` is no option of a bind"),
        ("10.0.0.1=4,tier=backup,tier=backup", "`tier` is given twice"),
        ("10.0.0.1=4,rate=20", "has no unit; write a rate such as"),
        ("10.0.0.1=4,rate=20M", "`M` is no unit of rate"),
        ("10.0.0.1=4,rate=0mbit", "at least 64kbit"),
        ("10.0.0.1=4,rate=63kbit", "at least 64kbit"),
        ("10.0.0.1=4,rate=-5mbit", "less than nothing"),
        ("10.0.0.1=4,rate=2000gbit", "leave rate= out"),
        ("10.0.0.1=4,rate=99999999999999999999gbit", "is too large"),
        ("10.0.0.1=4,", "no option"),
        ("10.0.0.1=4,lanes=5", "twice"),
        ("10.0.0.1,lanes=4,lanes=5", "twice"),
        ("dev:", "name is missing"),
        ("dev:..", "no interface name"),
        ("dev:a/b", "no interface name"),
        ("dev:abcdefghijklmnop", "15 characters"),
        ("dev:e\x1b", "\\u{1b}"),
    ] {
        let error = parse_bind(text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn json_keeps_the_order_and_takes_devices() {
    let map: BindMap =
        r#" {"10.0.0.2": 20, "0.0.0.0": 1, "dev:eth1": 4, "::1": 2} "#.parse().unwrap();
    let expected = [addr("10.0.0.2", 20), addr("0.0.0.0", 1), device("eth1", 4), addr("::1", 2)];
    assert_eq!(map.0, expected);
}

#[test]
fn json_errors_show_the_place() {
    for (text, expected) in [
        ("", "EOF while parsing"),
        ("{}", "no bind"),
        ("[]", "expected an object"),
        ("{\"0.0.0.0\" 10}", "line 1, column 12"),
        ("{\"0.0.0.0\": 10", "EOF"),
        ("{\"0.0.0.0\": 10} x", "trailing characters (line 1, column 17)"),
        ("{\"0.0.0.0\": \"10\"}", "0.0.0.0: the number of lanes must be"),
        ("{\"0.0.0.0\": 1.5}", "not 1.5"),
        ("{\"0.0.0.0\": -1}", "not -1"),
        ("{\"0.0.0.0\": null}", "not null"),
        ("{\"0.0.0.0\": 0}", "0 lanes"),
        ("{\"0.0.0.0\": {\"lanes\": 0}}", "0 lanes"),
        ("{\"0.0.0.0\": {\"tier\": \"gold\"}}", "0.0.0.0: `gold` is no tier"),
        (
            "{\"0.0.0.0\": {\"lane\": 2}}",
            "`lane` is no option of a bind (did you mean `lanes`?); known: lanes",
        ),
        ("{\"0.0.0.0\": {\"rate\": 20}}", "has to be text in quotes, not 20"),
        (
            "{\"0.0.0.0\": {\"express\": 3}}",
            "has to be true, false, or \"yes\" or \"no\" in quotes, not 3",
        ),
        ("{\"0.0.0.0\": {\"speed\": \"20\"}}", "`speed` is no option"),
        ("{\"0.0.0.0\": 100000}", "too many"),
        ("{\"eth0\": 1}", "write dev:eth0"),
        ("{\n  \"0.0.0.0\": 10,\n  oops\n}", "line 3"),
        ("{0.0.0.0: 10}", "key must be a string"),
    ] {
        let error = text.parse::<BindMap>().unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
        assert!(error.contains("--binds='{"), "{text}: {error}");
    }
}

#[test]
fn the_caret_points_at_the_mistake() {
    let error = "{\"0.0.0.0\" 10}".parse::<BindMap>().unwrap_err();
    let lines: Vec<_> = error.lines().collect();
    assert_eq!(lines[1], "    {\"0.0.0.0\" 10}");
    assert_eq!(lines[2], "               ^");
    // Far into a long line.
    let binds: Vec<_> = (1..100).map(|n| format!("\"10.0.0.{n}\": 1,")).collect();
    let long = format!("{{{} \"10.0.1.1\" 1}}", binds.concat());
    let error = long.parse::<BindMap>().unwrap_err();
    let lines: Vec<_> = error.lines().collect();
    assert!(lines.iter().all(|line| line.chars().count() < 100), "{error}");
    let mark = lines[2].find('^').unwrap();
    assert_eq!(lines[1].as_bytes()[mark], b'1', "{error}");
    let error = "{\"ü\" 1}".parse::<BindMap>().unwrap_err();
    assert!(error.contains("`ü` is no address"), "{error}");
}

#[test]
fn all_binds_together() {
    assert_eq!(check_all(&[addr("10.0.0.1", 156), addr("10.0.0.2", 100)]), Ok(()));
    let twice = check_all(&[addr("::1", 1), device("eth0", 1), addr("::1", 2)]).unwrap_err();
    assert!(twice.starts_with("::1 is bound twice"), "{twice}");
    let many = check_all(&[addr("10.0.0.1", 200), addr("10.0.0.2", 101)]).unwrap_err();
    assert!(many.contains("301 lanes"), "{many}");
}
