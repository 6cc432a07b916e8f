//! Where a lane's socket is bound, and what goes wrong while dialling.

use super::*;

#[tokio::test]
async fn bound_to_an_address_it_comes_from_there() {
    let (listener, _) = listener();
    let config = client_config(&Identity::generate().unwrap()).unwrap();
    let source = Ipv4Addr::new(127, 0, 0, 2).into();
    let dialer = dialer_from(&listener, BindSource::Addr(source), config);
    assert_eq!(dialer.name(), "127.0.0.2");
    let (client, server) = connect(&dialer, &listener).await;
    assert_eq!(server.peer_addr().unwrap().ip(), source);
    assert_eq!(client.local_addr(), server.peer_addr());
    assert_eq!(client.peer_addr(), server.local_addr());
}

#[tokio::test]
async fn bound_to_a_device_it_goes_out_there() {
    let (listener, _) = listener();
    let config = client_config(&Identity::generate().unwrap()).unwrap();
    let bind = Bind { source: BindSource::Device("lo".to_owned()), lanes: 1 };
    let dialer = dialer_from(&listener, bind.source, config.clone());
    assert_eq!(dialer.name(), "dev:lo");
    let (mut client, mut server) = connect(&dialer, &listener).await;
    pass_bytes(&mut *client, &mut *server).await;

    let missing = BindSource::Device("no-such-dev0".to_owned());
    let error = dialer_from(&listener, missing, config).dial().await.unwrap_err();
    assert!(matches!(error, DialError::Bind { .. }), "{error}");
    assert!(error.to_string().contains("dev:no-such-dev0"), "{error}");
}

#[tokio::test]
async fn ipv6_works_and_families_do_not_mix() {
    let identity = Identity::generate().unwrap();
    let listener = listener_at(Ipv6Addr::LOCALHOST.into(), server_config(&identity).unwrap());
    let config = client_config(&Identity::generate().unwrap()).unwrap();
    for bind in [Ipv6Addr::UNSPECIFIED, Ipv6Addr::LOCALHOST] {
        let dialer = dialer_from(&listener, BindSource::Addr(bind.into()), config.clone());
        let (mut client, mut server) = connect(&dialer, &listener).await;
        assert_eq!(server.peer_addr().unwrap().ip(), Ipv6Addr::LOCALHOST);
        pass_bytes(&mut *client, &mut *server).await;
    }
    let error = dialer_from(&listener, any_v4(), config).dial().await.unwrap_err();
    assert!(matches!(error, DialError::NoAddressOfFamily { .. }), "{error}");
}

#[tokio::test]
async fn an_address_that_is_not_ours_cannot_be_bound() {
    let (listener, _) = listener();
    let config = client_config(&Identity::generate().unwrap()).unwrap();
    // RFC 5737: reserved for documentation, so nobody's.
    let foreign = BindSource::Addr(Ipv4Addr::new(192, 0, 2, 77).into());
    let error = dialer_from(&listener, foreign, config).dial().await.unwrap_err();
    assert!(matches!(error, DialError::Bind { .. }), "{error}");
    assert!(error.to_string().contains("192.0.2.77"), "{error}");
}

#[tokio::test]
async fn a_refused_connection_says_where() {
    let (listener, _) = listener();
    let dialer = dialer(&listener);
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let error = dialer.dial().await.unwrap_err();
    let DialError::Connect { attempts, .. } = &error else { panic!("{error}") };
    assert_eq!(attempts[0].0, addr);
    assert_eq!(attempts[0].1.kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_silent_server_costs_the_timeout() {
    // It accepts connections and never says a word.
    let (listener, _) = listener();
    let mut dialer = dialer(&listener);
    dialer.options.dial_timeout = Duration::from_millis(300);
    let begin = Instant::now();
    let error = timeout(SOON, dialer.dial()).await.unwrap().unwrap_err();
    assert!(matches!(error, DialError::Timeout { .. }), "{error}");
    assert!(begin.elapsed() >= Duration::from_millis(300));
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn congestion_control_is_preferred_required_or_left() {
    let (listener, _) = listener();
    let mut dialer = dialer(&listener);
    let nonsense = "no_such_cc".to_owned();
    dialer.options.congestion = Congestion::Prefer(nonsense.clone());
    let (client, _server) = connect(&dialer, &listener).await;
    assert!(!client.describe().contains(&nonsense), "{}", client.describe());
    dialer.options.congestion = Congestion::Require(nonsense.clone());
    let error = dialer.dial().await.unwrap_err();
    assert!(matches!(&error, DialError::Congestion { name, .. } if *name == nonsense), "{error}");
    // reno is in every kernel and allowed to everybody.
    dialer.options.congestion = Congestion::Require("reno".to_owned());
    let (client, _server) = connect(&dialer, &listener).await;
    assert!(client.describe().ends_with("TCP reno"), "{}", client.describe());
}

#[tokio::test]
async fn a_taken_port_is_an_error() {
    let (listener, identity) = listener();
    let addr = listener.local_addr().unwrap();
    let again = TlsListener::bind(addr, server_config(&identity).unwrap(), TcpOptions::default());
    assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AddrInUse);
}
