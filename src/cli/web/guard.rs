//! Which requests are meant for this process, and what a browser may do with the answers.

use std::net::IpAddr;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::BASE64;
use hyper::Request;
use hyper::header::{self, HeaderName, HeaderValue};

/// Of every answer.
pub(super) const HEADERS: [(HeaderName, &str); 5] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// The policy that lets a browser run the page's own script and style, and nothing else.
pub(super) fn policy(page: &str) -> HeaderValue {
    let hash = |tag: &str| {
        let inside = page.split_once(&format!("<{tag}>")).map_or("", |(_, rest)| rest);
        let inside = inside.split_once(&format!("</{tag}>")).map_or("", |(inside, _)| inside);
        BASE64.encode(digest(&SHA256, inside.as_bytes()).as_ref())
    };
    let text = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash("script"),
        hash("style")
    );
    // Letters, digits and signs of ASCII alone.
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"))
}

/// Whether a request's Host is this machine in words that nobody else can have lead here. With a
/// token any name will do: a site that has its own name lead here has no token.
pub(super) fn is_for_here<B>(request: &Request<B>, has_token: bool) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Ok(host) = host.to_str() else { return false };
    let asked = request.uri().authority().map_or(host, |authority| authority.as_str());
    asked == host && (has_token || is_this_machine(host))
}

/// `localhost` or an address, with or without a port.
fn is_this_machine(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, "0"),
    };
    if port.parse::<u16>().is_err() {
        return false;
    }
    let inside = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    match inside {
        Some(inside) => inside.parse().is_ok_and(|ip: IpAddr| ip.is_ipv6()),
        None => {
            name.eq_ignore_ascii_case("localhost")
                || name.parse().is_ok_and(|ip: IpAddr| ip.is_ipv4())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_nobody_else_can_have_are_this_machine() {
        for host in ["localhost", "LOCALHOST:9100", "127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:1"]
        {
            assert!(is_this_machine(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "localhost.",
            "127.0.0.1.evil.example:80",
            "evil.example:127",
            "127.0.0.1:x",
            "[::1]:x",
            "::1",
            "[127.0.0.1]",
            "[evil]",
            "localhost:80:80",
            "0x7f.1",
        ] {
            assert!(!is_this_machine(host), "{host}");
        }
    }

    #[test]
    fn a_request_that_names_two_hosts_or_none_is_for_nobody() {
        let with = |uri: &str, hosts: &[&str]| {
            let mut request = Request::builder().uri(uri);
            for host in hosts {
                request = request.header(header::HOST, *host);
            }
            request.body(()).unwrap()
        };
        assert!(is_for_here(&with("/", &["localhost"]), false));
        assert!(is_for_here(&with("http://localhost/", &["localhost"]), false));
        assert!(!is_for_here(&with("/", &[]), false));
        assert!(!is_for_here(&with("/", &["localhost", "localhost"]), false));
        assert!(!is_for_here(&with("http://evil.example/", &["localhost"]), false));
        assert!(is_for_here(&with("/", &["imux.example:9100"]), true));
        assert!(!is_for_here(&with("/", &["imux.example:9100"]), false));
    }

    #[test]
    fn the_policy_lets_no_other_script_run() {
        let policy = policy("<style>a</style><script>b</script>");
        let policy = policy.to_str().unwrap();
        // Of `b` and `a`.
        assert!(
            policy.contains("script-src 'sha256-PiPoFgA5WUoziU9lZOGxNIu9egCI1CxKy3PurtWcAJ0='")
        );
        assert!(policy.contains("style-src 'sha256-ypeBEsobvcr6wjGzmiPcTaeG7/gUfE5yuYB3ha/uSLs='"));
        assert!(!policy.contains("unsafe"));
    }
}
