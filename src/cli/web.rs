//! What a process shows over HTTP (`--metrics`): metrics, whether it is alive and ready, and a page
//! for a browser. Nothing changes by it.
//!
//! Any web site may have a visitor's browser send requests here. So only GET and HEAD are answered;
//! the Host must be this machine by address, or as `localhost`, unless a token is asked for, as a
//! site could otherwise have its own name lead here (DNS rebinding); and no other origin may read
//! an answer.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::config::WebConfig;
use super::exit::{Exit, Failure};
use super::listening::{listen_addresses, listen_failure};
use super::status::source::{Source, Streams};
use token::Token;

mod guard;
mod metrics;
mod token;

/// The page: one file, without anything from elsewhere.
const PAGE: &str = include_str!("web/page.html");

/// Most connections at once: a browser has six, a Prometheus one.
const CONNECTIONS_MAX: usize = 32;

/// How long a request's head may take to arrive, and its answer to be taken.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where it is shown.
#[derive(Debug)]
pub struct Web {
    listener: TcpListener,
    token: Option<Token>,
}

impl Web {
    /// Listens where it is wanted.
    pub async fn bind_if(config: Option<&WebConfig>) -> Result<Option<Self>, Failure> {
        match config {
            Some(config) => Self::bind(config).await.map(Some),
            None => Ok(None),
        }
    }

    /// Listens, before anything else is started.
    async fn bind(config: &WebConfig) -> Result<Self, Failure> {
        let token = config.token.as_deref().map(read_token).transpose()?;
        let mut first_error = None;
        for address in listen_addresses(&config.listen).await? {
            // A name may lead anywhere.
            if token.is_none() && !address.ip().is_loopback() {
                continue;
            }
            match imux::lane::listen(address) {
                Ok(listener) => return Ok(Self { listener, token }),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        let error = first_error.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into());
        Err(listen_failure(&config.listen, &error))
    }

    /// Shows `source` until `stopping`.
    pub async fn serve(self, source: Source, stopping: impl Future<Output = ()>) {
        if let Ok(address) = self.listener.local_addr() {
            tracing::info!(%address, "metrics and page ready");
        }
        let shown = Arc::new(Shown { source, token: self.token, policy: guard::policy(PAGE) });
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut tasks = JoinSet::new();
        tokio::pin!(stopping);
        loop {
            tokio::select! {
                () = &mut stopping => return,
                Some(_) = tasks.join_next() => {}
                accepted = self.listener.accept() => {
                    let Ok((socket, from)) = accepted else {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    };
                    // One too many is closed.
                    let Ok(place) = places.clone().try_acquire_owned() else { continue };
                    let shown = shown.clone();
                    tasks.spawn(async move {
                        let _place = place;
                        shown.attend(socket, from).await;
                    });
                }
            }
        }
    }
}

fn read_token(file: &Path) -> Result<Token, Failure> {
    Token::read(file).map_err(|why| {
        let shown = file.display();
        Failure::message(Exit::Config, format!("cannot use {shown}: {why}; nothing was started"))
    })
}

#[derive(Debug)]
struct Shown {
    source: Source,
    token: Option<Token>,
    /// The content security policy.
    policy: HeaderValue,
}

type Answer = Response<Full<Bytes>>;

impl Shown {
    async fn attend(&self, socket: TcpStream, from: SocketAddr) {
        let answering =
            service_fn(|request| async move { Ok::<_, Infallible>(self.guarded(&request).await) });
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(16 << 10);
        let served = http.serve_connection(TokioIo::new(socket), answering);
        // However slowly it is read: at most as long as many requests take.
        if let Ok(Err(error)) = tokio::time::timeout(60 * PATIENCE, served).await {
            tracing::debug!(%from, %error, "an HTTP connection has ended");
        }
    }

    async fn guarded(&self, request: &Request<Incoming>) -> Answer {
        let mut answer = self.answer(request).await;
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_SECURITY_POLICY, self.policy.clone());
        for (name, value) in guard::HEADERS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        answer
    }

    async fn answer(&self, request: &Request<Incoming>) -> Answer {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "nothing is changed here\n");
            answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        if !guard::is_for_here(request, self.token.is_some()) {
            let why = "ask for this by an address of this machine, or as localhost\n";
            return plain(StatusCode::MISDIRECTED_REQUEST, why);
        }
        if self.token.as_ref().is_some_and(|token| !token.is_shown(request.headers())) {
            let mut answer = plain(StatusCode::UNAUTHORIZED, "a token is asked for\n");
            let how = HeaderValue::from_static("Basic realm=\"imux\", charset=\"UTF-8\"");
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, how);
            return answer;
        }
        match request.uri().path() {
            "/" => typed("text/html; charset=utf-8", PAGE),
            "/metrics" => self.made(metrics::CONTENT_TYPE, |it| Some(metrics::text(it))).await,
            "/page.json" => {
                self.made("application/json", |it| serde_json::to_string(it).ok()).await
            }
            "/livez" => plain(StatusCode::OK, "alive\n"),
            "/readyz" if self.source.is_ready() => plain(StatusCode::OK, "ready\n"),
            "/readyz" => plain(StatusCode::SERVICE_UNAVAILABLE, "no lane to the server\n"),
            _ => plain(StatusCode::NOT_FOUND, "there are /, /metrics, /livez and /readyz\n"),
        }
    }

    /// Something made of a snapshot that says neither keys nor where connections lead.
    async fn made(
        &self,
        kind: &'static str,
        make: fn(&super::status::snapshot::Process) -> Option<String>,
    ) -> Answer {
        let source = self.source.clone();
        let made = tokio::task::spawn_blocking(move || {
            let mut shown = source.snapshot(Streams::None);
            shown.sessions.iter_mut().for_each(|session| session.key = None);
            make(&shown)
        });
        match made.await {
            Ok(Some(text)) => typed(kind, text),
            _ => plain(StatusCode::INTERNAL_SERVER_ERROR, "it cannot be shown\n"),
        }
    }
}

fn plain(status: StatusCode, text: &'static str) -> Answer {
    let mut answer = typed("text/plain; charset=utf-8", text);
    *answer.status_mut() = status;
    answer
}

fn typed(kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
