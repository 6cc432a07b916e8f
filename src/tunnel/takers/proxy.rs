//! One port for all destinations: a program first says where it wants to go, in SOCKS5, SOCKS4a or
//! HTTP. The first byte shows which.
//!
//! Names are passed on as they are, and looked up by the server. What may be reached is the
//! server's decision alone.

use std::sync::Arc;

use tokio::time::timeout;

use super::{Listener, take};
use crate::driver::Client;
use crate::tunnel::connections::Connections;
use crate::tunnel::socket::{self, Socket};

mod credentials;
mod http;
mod program;
mod socks4;
mod socks5;
mod way;

#[cfg(any(test, fuzzing))]
pub(crate) use socks4::fuzz::socks4 as fuzz_socks4;

pub use credentials::{Credentials, InvalidCredentials};
pub use way::ProxyOptions;

use program::Program;
use way::{GREETING_TIMEOUT, Unheard, Way};

/// Serves programs that connect to `listener`, as [`forward_within`](crate::tunnel::forward_within)
/// does, each with a stream to where it says.
pub async fn serve_within(
    listener: impl Into<Listener>,
    client: Arc<Client>,
    options: ProxyOptions,
    bound: &Connections,
) {
    let listener = listener.into();
    let at: Arc<str> = listener.to_string().into();
    let each = |socket, from| {
        let (client, options, at) = (client.clone(), options.clone(), at.clone());
        let way = Way { client, options, bound: bound.clone(), from, at };
        async move {
            match greet(socket, &way).await {
                Ok(()) => {}
                Err(why @ Unheard::Credentials) => {
                    tracing::warn!(from = way.from, at = %way.at, %why, "connection refused");
                }
                Err(why) => {
                    tracing::debug!(from = way.from, at = %way.at, %why, "no proxy request");
                }
            }
        }
    };
    take(listener, &client, bound, each).await;
}

async fn greet(socket: Socket, way: &Way) -> Result<(), Unheard> {
    socket::prepare(&socket, way.bound.sockets());
    let first = timeout(GREETING_TIMEOUT, program::first_byte(&socket)).await;
    let program = Program::new(socket);
    match first.map_err(|_| Unheard::Late)?? {
        // It has gone again.
        None => Ok(()),
        Some(socks5::VERSION) => socks5::serve(program, way).await,
        Some(socks4::VERSION) => socks4::serve(program, way).await,
        // A method's name.
        Some(byte) if byte.is_ascii_alphabetic() => http::serve(program, way).await,
        Some(_) => Err(Unheard::OtherProtocol),
    }
}
