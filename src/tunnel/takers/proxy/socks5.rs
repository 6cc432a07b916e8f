//! SOCKS5 (RFC 1928), connections and datagrams, with user and password (RFC 1929) where the port
//! asks for them.

use std::net::{Ipv4Addr, SocketAddr};

use fast_socks5::server::{AuthMethod, AuthMethodSuccessState, Socks5ServerProtocol, states};
use fast_socks5::util::target_addr::TargetAddr;
use fast_socks5::{ReplyError, Socks5Command};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::program::Program;
use super::way::{GREETING_TIMEOUT, Refusal, Unheard, Way};

mod associate;

pub(super) const VERSION: u8 = 5;

type Asked<'a> = (Protocol<'a, states::CommandRead>, Socks5Command, TargetAddr);
type Protocol<'a, S> = Socks5ServerProtocol<&'a mut Program, S>;

pub(super) async fn serve(mut program: Program, way: &Way) -> Result<(), Unheard> {
    let ends = program.ends();
    let asked = timeout(GREETING_TIMEOUT, read(&mut program, way)).await;
    let (protocol, command, target) = match asked.map_err(|_| Unheard::Late)? {
        Ok(asked) => asked,
        Err(why) => {
            program.leave().await;
            return Err(why);
        }
    };
    if matches!(command, Socks5Command::UDPAssociate) {
        return associate::serve(protocol, &target, way, ends).await;
    }
    let (host, port) = target.into_string_and_port();
    let opened = match command {
        Socks5Command::TCPConnect if way.options.fast => {
            way.open(&host, port).await.map_err(reply_of)
        }
        Socks5Command::TCPConnect => way.connect(&host, port).await.map_err(reply_of),
        _ => Err(ReplyError::CommandNotSupported),
    };
    match opened {
        Ok(opened) => {
            // The address the server dials from is nobody's business here.
            let from = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
            protocol.reply_success(from).await?;
            way.carry(program, bytes::Bytes::new(), opened).await;
        }
        Err(why) => {
            protocol.reply_error(&why).await?;
            program.leave().await;
        }
    }
    Ok(())
}

async fn read<'a>(program: &'a mut Program, way: &Way) -> Result<Asked<'a>, Unheard> {
    let protocol = if way.options.credentials.is_some() {
        let protocol = Socks5ServerProtocol::start(program).negotiate_auth(&[Password]).await?;
        protocol.admit(way).await?
    } else {
        Socks5ServerProtocol::accept_no_auth(program).await?
    };
    Ok(protocol.read_command().await?)
}

fn reply_of(why: Refusal) -> ReplyError {
    match why {
        Refusal::Refused => ReplyError::ConnectionRefused,
        Refusal::Unreachable => ReplyError::NetworkUnreachable,
        Refusal::TimedOut => ReplyError::TtlExpired,
        Refusal::Name => ReplyError::HostUnreachable,
        Refusal::NotAllowed => ReplyError::ConnectionNotAllowed,
        Refusal::Busy | Refusal::Broken => ReplyError::GeneralFailure,
    }
}

/// User and password. Not the library's own, which writes what it was told into the log.
#[derive(Clone, Copy, Debug)]
struct Password;

/// Where the program says who it is.
struct Asking<T>(T);

impl<T> AuthMethod<T> for Password {
    type StartingState = Asking<T>;

    fn method_id(self) -> u8 {
        2
    }

    fn new(self, program: T) -> Asking<T> {
        Asking(program)
    }
}

impl<T> AuthMethodSuccessState<T> for Asking<T> {
    fn into_inner(self) -> T {
        self.0
    }
}

impl<'a> Asking<&'a mut Program> {
    async fn admit(mut self, way: &Way) -> Result<Protocol<'a, states::Authenticated>, Unheard> {
        let _version = self.0.read_u8().await?;
        let user = self.text().await?;
        let password = self.text().await?;
        let admitted = way.admits(&user, &password);
        self.0.write_all(&[1, u8::from(!admitted)]).await?;
        if admitted { Ok(self.finish_auth()) } else { Err(Unheard::Credentials) }
    }

    async fn text(&mut self) -> Result<Vec<u8>, Unheard> {
        let mut text = vec![0; self.0.read_u8().await?.into()];
        self.0.read_exact(&mut text).await?;
        Ok(text)
    }
}
