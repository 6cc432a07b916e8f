//! HTTP/1: CONNECT for any protocol, and plain HTTP requests that give the whole URL, each to its
//! own host (RFC 9110, 9112).

use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use data_encoding::BASE64;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{
    CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Uri, Version, client, server, upgrade};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::JoinSet;

use super::program::Program;
use super::way::{GREETING_TIMEOUT, Opened, Refusal, Unheard, Way};

/// Most that is kept of a request's head, or read ahead of its body.
const BUFFER_MAX: usize = 64 << 10;

const PORT: u16 = 80;

/// A response's body: the destination's own, or a message of ours.
type Body = Either<Incoming, Full<Bytes>>;

/// One program's connection, request after request.
#[derive(Debug, Default)]
struct Served {
    /// Where the connection leads once the last response is sent.
    tunnel: Mutex<Option<(OnUpgrade, Opened)>>,
    /// The host that was asked last, if it keeps its connection.
    kept: Mutex<Option<Host>>,
}

/// A destination that speaks HTTP.
#[derive(Debug)]
struct Host {
    authority: String,
    requests: SendRequest<Incoming>,
    /// The task that reads and writes for it; ends with this.
    _connection: JoinSet<()>,
}

pub(super) async fn serve(program: Program, way: &Way) -> Result<(), Unheard> {
    let served = Served::default();
    let answer = service_fn(async |request| Ok::<_, Infallible>(served.answer(request, way).await));
    let ended = server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(GREETING_TIMEOUT)
        // A program that has finished sending may still listen.
        .half_close(true)
        .max_buf_size(BUFFER_MAX)
        .serve_connection(TokioIo::new(program), answer)
        .with_upgrades()
        .await;
    ended?;
    let tunnel = served.tunnel.into_inner().unwrap_or_else(PoisonError::into_inner);
    let Some((upgrading, opened)) = tunnel else { return Ok(()) };
    let upgraded = upgrading.await?;
    // This is what was upgraded: nothing else is served here.
    if let Ok(parts) = upgraded.downcast::<TokioIo<Program>>() {
        way.carry(parts.io.into_inner(), parts.read_buf, opened).await;
    }
    Ok(())
}

impl Served {
    async fn answer(&self, request: Request<Incoming>, way: &Way) -> Response<Body> {
        if !is_admitted(request.headers(), way) {
            tracing::warn!(from = way.from, at = %way.at, "user and password are not right");
            return asks_for_password();
        }
        let answered = if request.method() == Method::CONNECT {
            self.connect(request, way).await
        } else {
            self.forward(request, way).await
        };
        answered.unwrap_or_else(Rejection::into_response)
    }

    async fn connect(
        &self,
        request: Request<Incoming>,
        way: &Way,
    ) -> Result<Response<Body>, Rejection> {
        let (host, port) = place(request.uri(), None)?;
        let fast = way.options.fast;
        let opened = if fast { way.open(host, port).await } else { way.connect(host, port).await };
        let opened = opened.map_err(|why| Rejection::Refused(why, request.uri().clone()))?;
        let tunnel = Some((upgrade::on(request), opened));
        *self.tunnel.lock().unwrap_or_else(PoisonError::into_inner) = tunnel;
        Ok(Response::new(Either::Right(Full::default())))
    }

    async fn forward(
        &self,
        mut request: Request<Incoming>,
        way: &Way,
    ) -> Result<Response<Body>, Rejection> {
        let asked = request.uri().clone();
        if asked.scheme_str() != Some("http") {
            return Err(Rejection::NoProxyRequest);
        }
        let (host, port) = place(&asked, Some(PORT))?;
        let authority = asked.authority().map(|it| without_user(it.as_str())).unwrap_or_default();
        strip(request.headers_mut());
        let own = HeaderValue::from_str(authority).map_err(|_| Rejection::NoProxyRequest)?;
        request.headers_mut().insert(HOST, own);
        let path = asked.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse().map_err(|_| Rejection::NoProxyRequest)?;
        *request.version_mut() = Version::HTTP_11;
        let refused = |why| Rejection::Refused(why, asked.clone());

        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut to = match kept {
            Some(kept) if kept.authority == authority && kept.requests.is_ready() => kept,
            _ => Host::open(way, authority, host, port).await.map_err(refused)?,
        };
        let mut answered = to.requests.try_send_request(request).await;
        if let Err(failed) = &mut answered
            && let Some(unsent) = failed.take_message()
        {
            // The kept connection had ended meanwhile, and saw nothing of this.
            to = Host::open(way, authority, host, port).await.map_err(refused)?;
            answered = to.requests.try_send_request(unsent).await;
        }
        let mut response =
            answered.map_err(|failed| refused(why_it_failed(&failed.into_error())))?;
        strip(response.headers_mut());
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(to);
        Ok(response.map(Either::Left))
    }
}

impl Host {
    async fn open(way: &Way, authority: &str, host: &str, port: u16) -> Result<Self, Refusal> {
        // The request goes with the opening; a missing connection shows when the answer is read.
        let Opened { stream, ends } = way.open(host, port).await?;
        let mut builder = client::conn::http1::Builder::new();
        builder.max_buf_size(BUFFER_MAX);
        let connected = builder.handshake(TokioIo::new(stream)).await;
        let (requests, connection) = connected.map_err(|error| why_it_failed(&error))?;
        let mut task = JoinSet::new();
        task.spawn(async move {
            let Err(error) = connection.await else { return };
            match stream_error(&error) {
                Some(why) => crate::tunnel::copy::tell(why, &ends),
                None => tracing::debug!(to = ends.to, %error, "HTTP connection broken off"),
            }
        });
        Ok(Self { authority: authority.to_owned(), requests, _connection: task })
    }
}

/// Why a request is not answered by its destination.
#[derive(Debug)]
enum Rejection {
    /// It is for a server, not for a proxy, or of another scheme.
    NoProxyRequest,
    Refused(Refusal, Uri),
}

impl Rejection {
    fn into_response(self) -> Response<Body> {
        let Self::Refused(why, to) = self else {
            let advice = "This is a proxy: it takes CONNECT, and requests by whole http:// URLs.\n";
            return plain(StatusCode::BAD_REQUEST, advice.to_owned());
        };
        let (status, error) = match why {
            Refusal::Refused => (StatusCode::BAD_GATEWAY, "connection_refused"),
            Refusal::Unreachable => (StatusCode::BAD_GATEWAY, "destination_ip_unroutable"),
            Refusal::TimedOut => (StatusCode::GATEWAY_TIMEOUT, "connection_timeout"),
            Refusal::Name => (StatusCode::BAD_GATEWAY, "dns_error"),
            Refusal::NotAllowed => (StatusCode::FORBIDDEN, "http_request_denied"),
            Refusal::Busy => (StatusCode::SERVICE_UNAVAILABLE, "connection_limit_reached"),
            Refusal::Broken => (StatusCode::BAD_GATEWAY, "connection_terminated"),
        };
        let to = to.authority().map(|to| without_user(to.as_str())).unwrap_or_default();
        let mut response = plain(status, format!("{to}: {why}.\n"));
        // RFC 9209: tells programs which kind of failure it was.
        if let Ok(value) = HeaderValue::from_str(&format!("imux; error={error}")) {
            response.headers_mut().insert(HeaderName::from_static("proxy-status"), value);
        }
        response
    }
}

fn plain(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Either::Right(Full::from(text)));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn asks_for_password() -> Response<Body> {
    let status = StatusCode::PROXY_AUTHENTICATION_REQUIRED;
    let mut response = plain(status, "This proxy asks for user and password.\n".to_owned());
    let challenge = HeaderValue::from_static("Basic realm=\"imux\", charset=\"UTF-8\"");
    response.headers_mut().insert(PROXY_AUTHENTICATE, challenge);
    response
}

fn is_admitted(headers: &HeaderMap, way: &Way) -> bool {
    let shown = headers.get(PROXY_AUTHORIZATION).and_then(|value| {
        let (scheme, encoded) = value.as_bytes().split_at_checked(6)?;
        let basic = scheme.eq_ignore_ascii_case(b"Basic ");
        basic.then(|| BASE64.decode(encoded.trim_ascii()).ok())?
    });
    let shown = shown.unwrap_or_default();
    let colon = shown.iter().position(|byte| *byte == b':').unwrap_or(shown.len());
    let (user, password) = shown.split_at(colon);
    way.admits(user, password.get(1..).unwrap_or_default())
}

/// Host, without brackets, and port of a URL.
fn place(url: &Uri, default: Option<u16>) -> Result<(&str, u16), Rejection> {
    let host = url.host().filter(|host| !host.is_empty()).ok_or(Rejection::NoProxyRequest)?;
    let host = host.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(host);
    let port = match url.port() {
        Some(port) => Some(port.as_u16()),
        None => default,
    };
    Ok((host, port.ok_or(Rejection::NoProxyRequest)?))
}

fn without_user(authority: &str) -> &str {
    authority.rsplit_once('@').map_or(authority, |(_, place)| place)
}

/// Removes what is for this connection and not for the other end: what `Connection` names, and all
/// that is between a program and its proxy.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<_> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse::<HeaderName>().ok())
        .collect();
    let proxy = headers.keys().filter(|name| name.as_str().starts_with("proxy-"));
    let proxy: Vec<_> = proxy.cloned().collect();
    let keep_alive = HeaderName::from_static("keep-alive");
    let own = [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, keep_alive];
    for name in named.into_iter().chain(proxy).chain(own) {
        headers.remove(name);
    }
}

/// The stream's error underneath an HTTP connection's.
fn stream_error(error: &hyper::Error) -> Option<&crate::driver::StreamError> {
    let mut cause: &dyn std::error::Error = error;
    loop {
        if let Some(found) = cause.downcast_ref() {
            return Some(found);
        }
        if let Some(io) = cause.downcast_ref::<std::io::Error>()
            && let Some(found) = io.get_ref().and_then(|inner| inner.downcast_ref())
        {
            return Some(found);
        }
        cause = cause.source()?;
    }
}

fn why_it_failed(error: &hyper::Error) -> Refusal {
    stream_error(error).map_or(Refusal::Broken, Refusal::of_stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_between_program_and_proxy_goes_no_further() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("proxy-authorization", "Basic x"),
            ("proxy-connection", "keep-alive"),
            ("keep-alive", "1"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("accept", "*/*"),
            ("authorization", "Basic y"),
        ] {
            headers.insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        strip(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "authorization"]);
    }

    #[test]
    fn places_of_urls() {
        let of = |url: &str, default| {
            let url: Uri = url.parse().unwrap();
            place(&url, default).ok().map(|(host, port)| (host.to_owned(), port))
        };
        let at = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(of("http://a.example/x", Some(80)), at("a.example", 80));
        assert_eq!(of("http://u:p@a.example:81/x", Some(80)), at("a.example", 81));
        assert_eq!(of("http://[2001:db8::1]:81/", Some(80)), at("2001:db8::1", 81));
        assert_eq!(of("a.example:443", None), at("a.example", 443));
        assert_eq!(of("a.example", None), None);
        assert_eq!(of("/x", Some(80)), None);
        assert_eq!(without_user("u:p@a.example:81"), "a.example:81");
    }
}
