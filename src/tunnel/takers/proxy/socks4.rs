//! SOCKS4 and SOCKS4a, the form with names. By hand: no maintained crate has the server's side.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::program::Program;
use super::way::{GREETING_TIMEOUT, Unheard, Way};

pub(super) const VERSION: u8 = 4;
const CONNECT: u8 = 1;

/// The longest user or name, in bytes, with its NUL.
const TEXT_MAX: usize = 256;

const GRANTED: u8 = 0x5a;
/// The one code for all failures except those of `identd`, which nobody asks any more, and of the
/// user.
const REJECTED: u8 = 0x5b;
const OTHER_USER: u8 = 0x5d;

/// What a program wants.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    command: u8,
    host: String,
    port: u16,
}

/// Bytes that are not a request.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Malformed(&'static str);

pub(super) async fn serve(mut program: Program, way: &Way) -> Result<(), Unheard> {
    let asked = timeout(GREETING_TIMEOUT, read(&mut program)).await;
    let request = match asked.map_err(|_| Unheard::Late)? {
        Ok(request) => request,
        Err(why) => {
            reply(program, REJECTED).await?;
            return Err(why);
        }
    };
    if way.options.credentials.is_some() {
        // It has a user's name and no password.
        reply(program, OTHER_USER).await?;
        return Err(Unheard::Credentials);
    }
    if request.command != CONNECT {
        reply(program, REJECTED).await?;
        return Err(Unheard::Socks4("nothing but CONNECT is served"));
    }
    let (host, port) = (&*request.host, request.port);
    let fast = way.options.fast;
    match if fast { way.open(host, port).await } else { way.connect(host, port).await } {
        Ok(opened) => {
            program.write_all(&answer(GRANTED)).await?;
            way.carry(program, bytes::Bytes::new(), opened).await;
        }
        Err(_) => reply(program, REJECTED).await?,
    }
    Ok(())
}

/// Byte by byte: what follows the request is the destination's.
async fn read(program: &mut Program) -> Result<Request, Unheard> {
    let mut bytes = Vec::new();
    loop {
        bytes.push(program.read_u8().await?);
        let parsed = parse(&bytes).map_err(|Malformed(why)| Unheard::Socks4(why))?;
        if let Some(request) = parsed {
            return Ok(request);
        }
    }
}

/// Its last words to a program that is not served.
async fn reply(mut program: Program, code: u8) -> Result<(), Unheard> {
    program.write_all(&answer(code)).await?;
    program.leave().await;
    Ok(())
}

const fn answer(code: u8) -> [u8; 8] {
    [0, code, 0, 0, 0, 0, 0, 0]
}

/// The request in `bytes`; `None` if they are only the beginning of one.
fn parse(bytes: &[u8]) -> Result<Option<Request>, Malformed> {
    let Some((&[version, command, p0, p1, a, b, c, d], rest)) = bytes.split_first_chunk() else {
        return Ok(None);
    };
    if version != VERSION {
        return Err(Malformed("not of version 4"));
    }
    let port = u16::from_be_bytes([p0, p1]);
    let Some((_user, rest)) = text(rest)? else { return Ok(None) };
    let (host, rest) = match [a, b, c, d] {
        // No address, but that a name follows.
        [0, 0, 0, last] if last != 0 => match text(rest)? {
            Some((name, rest)) => {
                let name = str::from_utf8(name).map_err(|_| Malformed("a name is no UTF-8"))?;
                (name.to_owned(), rest)
            }
            None => return Ok(None),
        },
        address => (Ipv4Addr::from(address).to_string(), rest),
    };
    if !rest.is_empty() {
        return Err(Malformed("more than a request"));
    }
    Ok(Some(Request { command, host, port }))
}

/// Bytes, and those behind them.
type Split<'a> = (&'a [u8], &'a [u8]);

/// A text up to its NUL, and what follows.
fn text(bytes: &[u8]) -> Result<Option<Split<'_>>, Malformed> {
    match bytes.iter().take(TEXT_MAX).position(|byte| *byte == 0) {
        Some(end) => Ok(bytes.split_at_checked(end).map(|(text, rest)| (text, &rest[1..]))),
        None if bytes.len() >= TEXT_MAX => Err(Malformed("a name is too long")),
        None => Ok(None),
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz {
    use super::*;

    /// However it is cut, a request parses the same and ends in the same place; its texts are
    /// bounded.
    pub(crate) fn socks4(data: &[u8]) {
        let prefixes = (0..=data.len()).map(|end| parse(&data[..end]));
        let mut decided = prefixes.enumerate().filter(|(_, parsed)| !matches!(parsed, Ok(None)));
        if let Some((length, parsed)) = decided.next() {
            assert!(length <= 8 + 2 * TEXT_MAX, "{length} bytes were read");
            if let Ok(Some(request)) = parsed {
                assert!(request.host.len() < TEXT_MAX);
            }
        } else {
            assert!(data.len() < 8 + 2 * TEXT_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(host: &str, port: u16) -> Result<Option<Request>, Malformed> {
        Ok(Some(Request { command: CONNECT, host: host.to_owned(), port }))
    }

    #[test]
    fn requests_with_addresses_and_with_names() {
        assert_eq!(parse(b"\x04\x01\x00\x50\xc0\x00\x02\x07me\0"), asked("192.0.2.7", 80));
        assert_eq!(parse(b"\x04\x01\x01\xbb\0\0\0\x01\0a.example\0"), asked("a.example", 443));
        // 0.0.0.0 is an address.
        assert_eq!(parse(b"\x04\x01\x00\x50\0\0\0\0\0"), asked("0.0.0.0", 80));
        for cut in 0..17 {
            assert_eq!(parse(&b"\x04\x01\x01\xbb\0\0\0\x01me\0a.exa"[..cut]), Ok(None), "{cut}");
        }
    }

    #[test]
    fn what_is_no_request_is_noticed_before_it_is_long() {
        let mut long = b"\x04\x01\x00\x50\xc0\x00\x02\x07".to_vec();
        long.resize(8 + TEXT_MAX - 1, b'u');
        assert_eq!(parse(&long), Ok(None));
        long.push(b'u');
        assert!(parse(&long).is_err());
        assert!(parse(b"\x05\x01\x00\x50\xc0\x00\x02\x07").is_err());
        assert!(parse(b"\x04\x01\x00\x50\0\0\0\x01\0\xff\xfe\0").is_err());
    }
}
